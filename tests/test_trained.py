"""A checkpoint that says how it was trained: evaluations follow it, and leave its problems out."""

import json

import pytest

from harness import api
from harness.errors import UsageError
from harness.models import trained
from harness.options import Config

TOLD = {
    "format": 1,
    "knobs": {"layout": "multi_turn", "parent": "latest", "init_template": False},
    "list_digest": "0" * 64,
    "problems": ["HumanEval/1", "HumanEval/9"],
}


@pytest.fixture
def checkpoint(tmp_path):
    """A GGUF file's name with what lies beside it; nobody asks it anything here."""
    pytest.importorskip("xllamacpp")
    path = tmp_path / "meta.gguf"
    path.write_bytes(b"GGUF")
    path.with_suffix(f".{trained.FILE}").write_text(json.dumps(TOLD))
    return path


def planned(tmp_path, meta, **fields):
    options = {"worker": "sim/skill=0.5", "meta": f"local/{meta}", "limit": "4", **fields}
    config = Config(method="flowreasoner", out=tmp_path / "results", **options)
    return api.prepare(config, cache_dir=tmp_path / "cache")


def test_its_layout_is_followed_and_said(tmp_path, checkpoint):
    plan = planned(tmp_path, checkpoint)
    assert plan.knobs | TOLD["knobs"] == plan.knobs
    assert f"local/{checkpoint} was trained with layout=multi_turn" in plan.notes
    assert plan.full_knobs["layout"] == "multi_turn"


def test_what_is_given_goes_before_it(tmp_path, checkpoint):
    plan = planned(tmp_path, checkpoint, knobs={"layout": "round"})
    assert (plan.knobs["layout"], plan.knobs["parent"]) == ("round", "latest")
    paper = planned(tmp_path, checkpoint, knobs={"preset": "paper"})
    assert paper.knobs["layout"] == "multi_turn"  # what it was trained in is no matter of taste


def test_a_first_look_is_short_and_the_full_run_follows_the_checkpoint(tmp_path, checkpoint):
    told = {**TOLD, "knobs": {"layout": "multi_turn", "rounds": 4}}
    checkpoint.with_suffix(f".{trained.FILE}").write_text(json.dumps(told))
    plan = planned(tmp_path, checkpoint, worker=None, limit=None)
    assert (plan.knobs["layout"], plan.knobs["rounds"]) == ("multi_turn", 2)
    assert (plan.full_knobs["layout"], plan.full_knobs["rounds"]) == ("multi_turn", 4)


def test_the_problems_that_it_was_trained_on_are_left_out_by_name(tmp_path, checkpoint):
    plan = planned(tmp_path, checkpoint, limit=None)
    assert (len(plan.items), [*plan.left_out]) == (162, ["HumanEval/1", "HumanEval/9"])


def test_a_checkpoint_as_the_worker_changes_no_knob(tmp_path, checkpoint):
    config = Config(
        method="flowreasoner", worker=f"local/{checkpoint}", meta="sim/", limit="2", out=tmp_path
    )
    plan = api.prepare(config, cache_dir=tmp_path / "cache")
    assert plan.knobs["layout"] == "round"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "no description of a checkpoint"),
        ('{"format": 9}', "no description of a checkpoint"),
        ('{"format": 1, "knobs": []}', "wants knobs as an object"),
    ],
)
def test_a_broken_description_is_one_line(tmp_path, text, says):
    (tmp_path / trained.FILE).write_text(text)
    with pytest.raises(UsageError, match=says):
        trained.read(tmp_path)


def test_without_a_description_nothing_is_known(tmp_path):
    assert trained.read(tmp_path) == trained.Trained()
