"""Which source keeps a workspace: one at a time, and another one only once it takes the workspace over.

A source is a folder that is followed. Were there two of a workspace, each would take out what the other put in, for
ever. So each change comes with a claim, and is made only together with it. Nobody's claim lapses by time: a folder
whose machine sleeps is still where the documents come from.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LABEL_CHARACTERS = 1024


class Claim(NamedTuple):
    """What a source says of itself with each change.

    Attributes:
        source: Its identity, 32 hexadecimal digits.
        label: Where it is, for eyes.
        epoch: What an earlier answer told; 0: not known yet.
        take_over: With epoch 0: the workspace is wanted although another source keeps it.
    """

    source: str
    label: str
    epoch: int = 0
    take_over: bool = False


class Keeper(NamedTuple):
    """The source that keeps a workspace.

    Attributes:
        source: Its identity.
        label: Where it is, for eyes.
        epoch: Raised by each take-over, so that what the former source still sends is told from what is valid.
        heard_at_ms: When it last made a change, or said that there is none, by the primary's clock.
    """

    source: str
    label: str
    epoch: int
    heard_at_ms: int


def is_admitted(keeper: Keeper | None, claim: Claim | None) -> bool:
    """Whether changes that come with this claim may be made in a workspace that this source keeps."""
    if keeper is None:
        return True
    if claim is None:
        return False
    if claim.epoch:
        return claim.source == keeper.source and claim.epoch == keeper.epoch
    return claim.source == keeper.source or claim.take_over


def keeper_after(keeper: Keeper | None, claim: Claim, now_ms: int) -> Keeper:
    """Who keeps a workspace once a claim was admitted.

    A source that comes again goes on in its epoch: several processes may follow one folder. Where the workspace has
    no keeper although the claim names an epoch, a fail-over has lost the row, and the source begins anew: epochs
    are made here, never taken from outside.
    """
    if keeper is None:
        epoch = 1
    elif claim.source == keeper.source:
        epoch = keeper.epoch
    else:
        epoch = keeper.epoch + 1
    return Keeper(claim.source, claim.label, epoch, now_ms)
