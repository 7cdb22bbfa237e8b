"""What is wrong with a file of tests of rules, and where, is said in words."""

from pathlib import Path

import pytest

from ingest.watch.rules.cases import CasesError, read_cases

HEAD = 'rules = "rules.toml"\n[[test]]\nname = "x"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[test]]\nrecords = []", "there is no rules; a file of tests has"),
        ('rules = "rules.toml"', "there is no test; a file of tests has"),
        ('rules = "rules.toml"\ntest = 1', "test: this is a list of tables"),
        (HEAD, 'test "x": there is no records'),
        (HEAD + 'records = "x"', 'test "x": records: this is a list of tables'),
        (HEAD + "records = [1]", 'test "x": records: this is a list of tables'),
        (HEAD + "records = []\nexpect = 1", 'test "x": expect: this is a list of tables'),
        (HEAD + "records = []\nuntil = 5", 'test "x": 5 is not a duration in quotes'),
        (HEAD + 'records = [{at = "1s", text = "t"}]', 'test "x": there is no device'),
        (HEAD + 'records = [{at = "1s", device = "a b", text = "t"}]', "'a b' is no device's name"),
        (HEAD + 'records = [{at = "1s", device = "a"}]', 'test "x": a record has a text or data'),
        (HEAD + 'records = [{at = "1s", device = "a", seq = "q", text = ""}]', "a whole number"),
    ],
)
def test_what_is_wrong_with_a_file_of_tests(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "hot"\nwhen = "temp > 1"\n')
    path = tmp_path / "tests.toml"
    path.write_text(text)
    with pytest.raises(CasesError) as caught:
        read_cases(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
