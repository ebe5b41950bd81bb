"""Prompt tuning methods."""

from clipcal.methods._base import TuningMethod
from clipcal.methods._clip_adapter import CLIPAdapter
from clipcal.methods._cocoop import CoCoOp
from clipcal.methods._coop import CoOp, KgCoOp
from clipcal.methods._dept import DePT
from clipcal.methods._ivlp import IVLP
from clipcal.methods._linear_probe import LinearProbe
from clipcal.methods._lp_plus_plus import LPPlusPlus
from clipcal.methods._maple import MaPLe
from clipcal.methods._proda import ProDA
from clipcal.methods._prograd import ProGrad
from clipcal.methods._promptsrc import PromptSRC
from clipcal.methods._taskres import TaskRes
from clipcal.methods._tcp import TCP
from clipcal.methods._tip_adapter import TipAdapter, TipAdapterF
from clipcal.methods._vpt import VPT
from clipcal.methods._zero_shot import zero_shot_features

METHODS: dict[str, type[TuningMethod]] = {
    method.name: method
    for method in (
        CoOp,
        KgCoOp,
        CoCoOp,
        ProGrad,
        ProDA,
        TCP,
        DePT,
        MaPLe,
        IVLP,
        PromptSRC,
        VPT,
        CLIPAdapter,
        TipAdapter,
        TipAdapterF,
        TaskRes,
        LinearProbe,
        LPPlusPlus,
    )
}

__all__ = [
    "IVLP",
    "METHODS",
    "TCP",
    "VPT",
    "CLIPAdapter",
    "CoCoOp",
    "CoOp",
    "DePT",
    "KgCoOp",
    "LPPlusPlus",
    "LinearProbe",
    "MaPLe",
    "ProDA",
    "ProGrad",
    "PromptSRC",
    "TaskRes",
    "TipAdapter",
    "TipAdapterF",
    "TuningMethod",
    "zero_shot_features",
]
