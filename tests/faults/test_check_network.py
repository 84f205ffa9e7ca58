"""What ``check-network`` refuses with exit code 2: networks that can't be found or built."""

import pytest

from tests.network_check import broken_networks
from tests.support.faults import assert_refused, run

MODULE = broken_networks.__name__

FAULTS = {
    "no such name": (("levit_unet_385",), ("'levit_unet_385'", "levit_unet_384")),
    "no such package": (("nowhere.nets:Net",), ("nowhere.nets:Net", "needs the package nowhere", "install it")),
    "no such class": ((f"{MODULE}:Godo",), ("Godo", "did you mean Good")),
    "no class of networks": (("json:dumps",), ("json.dumps", "no class of networks")),
    "a function that runs code": (("torch.hub:load",), ("torch.hub.load", "no class of networks")),
    "no such class of MONAI's": (("monai:SwinUNET",), ("SwinUNETR",)),
    "an argument that is missing": ((f"{MODULE}:NeedsWidths",), ("number of channels", "--set ARGUMENT={channels}")),
    "a value that is missing": (
        (f"{MODULE}:NeedsWidths", "--set", "planes_in={channels}", "--set", "planes_out={classes}"),
        ("needs widths", "--set widths="),
    ),
    "a setting of no argument": ((f"{MODULE}:Good", "--set", "depth=3"), ("no argument 'depth'", "in_channels")),
    "a setting without value": ((f"{MODULE}:Good", "--set", "depth"), ("'depth'", "key=value")),
    "a setting twice": ((f"{MODULE}:Good", "--set", "a=1", "--set", "a=2"), ("a twice",)),
    "a constructor that fails": (
        (
            f"{MODULE}:NeedsWidths",
            "--set",
            "planes_in={channels}",
            "--set",
            "planes_out={classes}",
            "--set",
            "widths=3",
        ),
        ("can't be built", "widths=3", "--set"),
    ),
    "no such rule": ((f"{MODULE}:Good", "--skip", "logit"), ("no rule 'logit'", "logits")),
    "a rule that can't be skipped": ((f"{MODULE}:Good", "--skip", "sizes"), ("'sizes' can't be skipped",)),
    "no adapter of the adapter": (
        ("nnunetv2_levit.any_network.adapter:AdaptedNetwork", "--set", "network=x"),
        ("AdaptedNetwork",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_call_is_one_sentence(fault, capsys):
    words, said = FAULTS[fault]
    assert_refused(run(capsys, "check-network", *words), *said)


def test_an_output_that_cannot_be_written_is_known_first(capsys, tmp_path):
    outcome = run(capsys, "check-network", f"{MODULE}:Good", "-o", tmp_path)
    assert_refused(outcome, str(tmp_path))
