"""A place to listen at whose protocol somebody else wrote."""

from pathlib import Path
from typing import cast

import pytest

from ingest.listener.doors import DoorError, IReactorPorts
from ingest.listener.protocols import ProtocolMaker
from ingest.service import ports
from ingest.service.settings import Listen

FAULTS = {
    "missing": ("import no_such_module", "ModuleNotFoundError(\"No module named 'no_such_module'"),
    "nameless": ("", "AttributeError(\"module 'nameless' has no attribute 'make_converse'\")"),
    "raising": ("def make_converse(options):\n    raise KeyError('x')", "KeyError('x') at "),
}


@pytest.mark.parametrize(("module", "code", "what"), [(m, *rest) for m, rest in FAULTS.items()])
def test_a_protocol_that_fails_is_one_line_that_says_where(
    module: str, code: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ports, "find", lambda name: ProtocolMaker(name, "", module))
    with pytest.raises(DoorError) as raised:
        ports.entrance(Listen("tcp:0", module), cast(IReactorPorts, None))
    line = str(raised.value)
    assert line.startswith(f"--listen {module}=tcp:0: the protocol {module} can't be used: ")
    assert what in line and ".py:" in line
    assert "\n" not in line
