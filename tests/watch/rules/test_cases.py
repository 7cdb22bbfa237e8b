"""What is wrong with a file of tests of rules, and where, is said in words."""

from pathlib import Path

import pytest

from ingest.watch.rules.cases import CasesError, read_cases

HEAD = 'rules = "rules.toml"\n[[test]]\nname = "x"\n'
RECORD = HEAD + "records = [{%s}]"
ALERT = HEAD + "records = []\nexpect = [{%s}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[test]]\nrecords = []", ": there is no rules; a file of tests has"),
        ('rules = "rules.toml"', ": there is no test; a file of tests has"),
        ('rules = "rules.toml"\ntest = 1', ": test: this is a list of tables"),
        ("rules = 5\n[[test]]", ": rules: this is a text in quotes"),
        ("fo = 1\n" + HEAD, ": fo has no meaning here; there are rules, test"),
        ("records = [", ": this is no TOML: Invalid value"),
        (HEAD, ':2: test "x": there is no records'),
        (HEAD + 'records = "x"', ':4: test "x": records: this is a list of tables'),
        (HEAD + "records = [1]", ':4: test "x": records: this is a list of tables'),
        (HEAD + "records = []\nexpect = 1", ':5: test "x": expect: this is a list of tables'),
        (HEAD + "records = []\nuntil = 5", ':5: test "x": 5 is not a duration in quotes'),
        (HEAD + "records = []\nexpcet = []", ':5: test "x": expcet has no meaning here'),
        (RECORD % 'at = "1s", text = "t"', ':4: test "x": record 1: there is no device'),
        (RECORD % 'at = "1s", device = "a b", text = "t"', "'a b' is no device's name"),
        (RECORD % 'at = "1s", device = "a"', ':4: test "x": record 1: a record has a text or'),
        (RECORD % 'at = "1s", device = "a", seq = "q", text = ""', "a whole number"),
        (RECORD % 'at = "1s", device = "a", text = 5', "record 1: text: this is a text in quotes"),
        (RECORD % f'at = "1s", device = "a", data = {1 << 70}', "no record has such a value"),
        (RECORD % 'at = "9999999d", device = "a", text = ""', "record 1: '9999999d' is more than"),
        (
            ALERT % 'rule = "hto", fires = "1s"',
            ':5: test "x": alert 1: there is no rule hto; is it hot?',
        ),
        (ALERT % 'rule = 5, fires = "1s"', "alert 1: rule: this is a text in quotes"),
        (ALERT % 'rule = "hot"', "alert 1: there is no fires"),
    ],
)
def test_what_is_wrong_with_a_file_of_tests(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "hot"\nwhen = "temp > 1"\n')
    path = tmp_path / "tests.toml"
    path.write_text(text)
    with pytest.raises(CasesError) as caught:
        read_cases(path)
    assert str(caught.value).startswith(f"{path}:")
    assert said in str(caught.value)
