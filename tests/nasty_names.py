"""Hypothesis strategies of ids that people's files have."""

import os

from hypothesis import strategies as st

from tagclip.image_ids import safe_id, without_suffix

HARD = (
    "a b", " a", "a ", "a  b", "my photo 12 3", "#1", "# a", '"a"', '"', "'", "-rf", "--list", "a.", "a..", "a...b",
    "photo.jpg.jpg", "1.2.3", "été", "e\u0301te\u0301", "日本", "🐈", "con", "NUL", "aux.txt", "a:b", "a\\b", "a\tb",
    "a\nb", "a\r", "a\u2028b", "a\x85b", "a\u00a0b", "\u3000", "\ufeffa", "%20", "a;b,c", "~", "$HOME", "*?[x]", "{}",
    "caf\udce9", "0", "1e3", "null", "a.png", "a.npz", "A.PNG",
)  # fmt: skip


_letters = st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",))
_parts = st.one_of(st.sampled_from(HARD), st.text(_letters, min_size=1, max_size=12))
_paths = st.lists(_parts.filter(lambda part: not part.startswith(".")), min_size=1, max_size=3).map("/".join)
ids = _paths.map(safe_id).filter(
    lambda name: without_suffix(name) == name and all(len(os.fsencode(part)) <= 200 for part in name.split("/"))
)
id_lists = st.lists(ids, min_size=1, max_size=6, unique=True)
