"""What a run's results depend on, as its recipe says it."""

from wsss.pipeline.recipe import dataset_settings

STRATEGY = """
from wsss.dense.strategy import Strategy

STRATEGY = Strategy("mine", lambda q, k, v, context, options: v * {factor}, residual=False, mlp=False)
"""


def test_the_content_of_a_strategy_file_is_part_of_a_run_and_its_place_is_not(tmp_path):
    found = []
    for folder, factor in (("a", 1), ("b", 2), ("c", 1)):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(STRATEGY.format(factor=factor))
        found.append(dataset_settings("masks/custom", options={"vocabulary": "cat", "method": str(path)}).identity())
    assert found[0] == found[2] != found[1]
    assert found[0]["method"] == "mine.py"
