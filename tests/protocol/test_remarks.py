"""Remarks of one kind are one line that tells how many there are and where; the rest stays as it is."""

from fedperfit.protocol.tasks.remarks import summed_up


def test_each_kind_is_told_once_and_few_one_by_one():
    remarks = [
        "a/x.csv: cells are taken as separated by semicolons",
        *(f"a/x.csv, line {n}: mood='{n % 5},5' is taken as '{n % 5}.5'" for n in range(2, 1_200)),
        "a/x.csv, line 1200: no 'mood'; left out",
        """a/x.csv, line 1201: no time in "it's"; left out""",
        *(f"b.json, entry {n} (user u{n}), history item 1: date 'a: b' is wrong; left out" for n in range(4)),
        "a/x.csv, line 1203: no time in 'x\\'y'; left out",
        *(f"c.jsonl, line {n}, item 2: expected an object; left out" for n in (5, 7, 8, 9)),
    ]
    assert list(summed_up(remarks, 3)) == [
        remarks[0],
        "a/x.csv, 1,198 lines (2, 3, 4, and 1,195 more): mood='2,5' is taken as '2.5'; 4 other texts like it",
        *remarks[1199:1201],
        "a/x.csv, line 1203: no time in 'x\\'y'; left out",
        "b.json, 4 places (entry 0 (user u0), history item 1; entry 1 (user u1), history item 1; entry 2 "
        "(user u2), history item 1; and 1 more): date 'a: b' is wrong; left out",
        "c.jsonl, 4 places (line 5, item 2; line 7, item 2; line 8, item 2; and 1 more): expected an object; "
        "left out",
    ]
    assert list(summed_up(["line 1: not JSON"] * 4, 9)) == ["4 lines (1, 1, 1, 1): not JSON"]
    rows = [f"d.parquet, row {n}: not UTF-8 text" for n in (1, 2)]
    entries = [f"d.json, entry {n}: not UTF-8 text" for n in (1, 2, 3, 4)]
    assert list(summed_up([*rows, *entries], 9)) == [
        *rows,
        "d.json, 4 entries (1, 2, 3, 4): not UTF-8 text",
    ]
    assert list(summed_up([], 3)) == []
