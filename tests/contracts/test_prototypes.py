"""Every registered way of finding likenesses, on a small network and pictures of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch

from registered import check_class, small
from seewhy.attributions.shares import cell_evidence, shares, strongest_cells
from seewhy.classifiers import classifiers
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import EncoderOutput
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.heads.head import Target
from seewhy.pictures.sources import list_pictures
from seewhy.prototypes import Prototypes, prototypes
from seewhy.prototypes.bank import PatchBank, Patches
from seewhy.prototypes.base import Query
from tiny import class_folders, noise, tiny_cnn


@dataclass(frozen=True)
class Case:
    """A method with a model, a bank of its kind, and the pictures in it."""

    method: Prototypes
    model: Classifier
    bank: Patches
    seen: list[Encoded]

    def query(self, index: int, digest: str = "") -> Query:
        features, pooled = self.seen[index].features, self.seen[index].pooled
        assert features is not None
        return asked(self.model, EncoderOutput(features[None], pooled[:1]), digest)


def asked(model: Classifier, look: EncoderOutput, digest: str = "") -> Query:
    target = Target(model.head(look.pooled).argmax(1))
    cells = strongest_cells(shares(cell_evidence(model, look, target))[0], 3)
    return Query(look, target, cells, digest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), n=8)


OF_ANY_CLASSIFIER = [name for name in prototypes if not prototypes[name].recipe]
"""Those whose bank comes with the classifiers of one recipe are held to the same in its own tests."""


@pytest.fixture(params=OF_ANY_CLASSIFIER)
def case(request: pytest.FixtureRequest, folder: Path) -> Case:
    model = Pretrained().build(tiny_cnn())
    names = list(list_pictures([folder]))
    wanted = EncodeRequest(features=lambda _i: True, pictures=True)
    seen = [s for s in encode_stream(model.encoder, names, request=wanted) if isinstance(s, Encoded)]
    bank: Patches
    fitted_by = prototypes[request.param].fitted_by
    # The textures are alike to an untrained network, so that only true copies count as copies here.
    if fitted_by:
        kind = resolve_name(fitted_by)
        fit = kind(**{f.name: 0.99999 for f in fields(kind) if f.name == "duplicate"})
        bank = fit.fit(model, [(n, i // 8) for i, n in enumerate(names)])
    else:
        bank = PatchBank.build(model, seen, [i // 8 for i in range(len(names))])
    return Case(small(prototypes, request.param, duplicate=0.99999), model, bank, seen)


@pytest.mark.parametrize("name", [*prototypes])
def test_class_attributes_and_file_name(name: str) -> None:
    check_class(prototypes, name)
    assert prototypes[name].recipe in ("", *classifiers)


def test_shares_fall_likenesses_are_in_range_and_the_same_each_time(case: Case) -> None:
    query = asked(case.model, case.model.encoder.encode(noise(1, 5)))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    groups = case.method(case.model, case.bank, query)
    assert torch.equal(state, torch.get_rng_state())
    assert groups
    assert [g.share for g in groups] == sorted((g.share for g in groups), reverse=True)
    assert all(0 < g.share <= 1 for g in groups)
    assert sum(g.share for g in groups) <= 1 + 1e-6
    matches = [m for g in groups for m in g.matches]
    assert matches
    assert all(-1 - 1e-6 <= m.similarity <= 1 + 1e-6 for m in matches)
    assert all(0 <= m.patch < len(case.bank.owner) for m in matches)
    assert groups == case.method(case.model, case.bank, query)


def test_activation_is_what_the_groups_are_made_of(case: Case) -> None:
    query = asked(case.model, case.model.encoder.encode(noise(1, 5)))
    for group in case.method(case.model, case.bank, query):
        which = torch.tensor([m.patch for m in group.matches])
        maps = case.method.activation(case.model, case.bank, query.look, which)
        assert maps.shape == (1, len(which), 8, 8)
        if group.channel is None:
            found = maps[0, :, group.cell[0], group.cell[1]]
            assert torch.allclose(found, torch.tensor([m.similarity for m in group.matches]), atol=1e-5)
        else:
            assert [divmod(int(m.argmax()), 8) for m in maps[0]] == [group.cell] * len(which)


def test_activation_one_by_one_is_that_of_the_batch(case: Case) -> None:
    look = case.model.encoder.encode(noise(3, 6))
    which = torch.tensor([0, 3])
    together = case.method.activation(case.model, case.bank, look, which)
    apart = [case.method.activation(case.model, case.bank, look[i : i + 1], which) for i in range(3)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-6)


def test_the_query_itself_and_its_near_duplicates_are_never_shown(case: Case) -> None:
    # By its digest, on features that are another picture's; and by its features, under another digest.
    name = case.bank.pictures[0]
    other = asked(case.model, case.model.encoder.encode(noise(1, 5)), digest=name.digest)
    own = next(i for i, s in enumerate(case.seen) if s.digest == name.digest)
    for query in (other, case.query(own)):
        for group in case.method(case.model, case.bank, query):
            assert all(int(case.bank.owner[m.patch]) != 0 for m in group.matches)


def test_no_picture_twice_and_no_two_copies_of_one(case: Case) -> None:
    pooled = case.bank.pooled.clone()
    pooled[2:] = pooled[1]
    known: Any = replace(case.bank, pooled=pooled)  # type: ignore[type-var]
    for group in case.method(case.model, known, asked(case.model, case.model.encoder.encode(noise(1, 5)))):
        owners = [int(known.owner[m.patch]) for m in group.matches]
        assert len([o for o in owners if o > 0]) <= 1
        assert len(set(owners)) == len(owners)


def test_a_bank_of_the_query_alone_gives_no_match(case: Case) -> None:
    mine: Any = replace(  # type: ignore[type-var]
        case.bank, pictures=tuple(replace(p, digest="mine") for p in case.bank.pictures)
    )
    query = asked(case.model, case.model.encoder.encode(noise(1, 5)), digest="mine")
    assert [g.matches for g in case.method(case.model, mine, query) if g.matches] == []


def test_the_bank_of_another_method_is_refused(case: Case) -> None:
    other = next(n for n in OF_ANY_CLASSIFIER if prototypes[n].fitted_by != case.method.fitted_by)
    query = asked(case.model, case.model.encoder.encode(noise(1, 5)))
    with pytest.raises(TypeError, match="needs a"):
        small(prototypes, other)(case.model, case.bank, query)
