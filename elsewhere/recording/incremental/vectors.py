"""Activations as vectors, of which only windows are held: the rest is the empty canvas's map.

A row is ``a * e`` outside its window and a block of values inside, where ``e`` is the empty
canvas's activation. Let ``E(R)`` be the sum of squares of ``e`` over a rectangle R, v and w rows
with windows V and W and weights a and b, I the overlap of V and W, and ``d = w - b e`` over W what
the opposite row changes. Then

    v·w = a b (E(all) - E(V)) + b (v·e over V) + a (e·d over W less I) + v·d over I

so that norms and products take no whole map. Where ``v·e`` is known, as of windows that many
locations share, only the product over the overlap is left; else the sum of both is ``v·w'`` over V,
w' being the opposite row's whole map. ``E`` and ``e·d`` come from tables of cumulated sums in
double precision, and so are all other products (:mod:`elsewhere.measures.vectors`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.vectors import (
    Groups,
    Pairs,
    compare_one_by_one,
    dot_products,
    to_numpy,
)
from elsewhere.protocols import Array
from elsewhere.recording.incremental.rectangles import (
    Piece,
    Region,
    RegionChange,
    Sums,
    flat,
    sum_over,
    whole,
)
from elsewhere.recording.incremental.windows import Ground

Tensor: TypeAlias = torch.Tensor
Floats: TypeAlias = NDArray[np.float64]


@dataclass(eq=False)
class WindowVectors:
    """Rows as :class:`elsewhere.protocols.Vectors`, held as windows, at most one a row.

    `weights` (row,) are those of the empty canvas's map outside the windows. Windows are in double
    precision if `exact`. Where `offsets` are given, they are each row's mean over its units, which
    is removed.
    """

    ground: Ground
    weights: Floats
    pieces: list[Piece] = field(default_factory=list)
    exact: bool = False
    offsets: Floats | None = None
    _located: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def _units(self) -> int:
        return self.ground.values.numel()

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.exact else torch.float32

    # --- products ---------------------------------------------------------------------------

    def norms(self) -> Floats:
        """Euclidean norms, shape (row,)."""
        table = self.ground.squares
        squares = self.weights**2 * float(table[-1, -1])
        if pieces := self.pieces:
            rows = np.concatenate([piece.rows for piece in pieces])
            inside = sum_over(table, np.array([piece.region for piece in pieces]))
            inside = np.repeat(inside, [len(piece.rows) for piece in pieces])
            squares[rows] -= self.weights[rows] ** 2 * inside
            squares[rows] += np.concatenate([piece.squares for piece in pieces])
        if self.offsets is not None:
            squares = squares - self._units * self.offsets**2
        result: Floats = np.sqrt(np.maximum(squares, 0.0))
        return np.where(np.isfinite(squares), result, squares)

    def dots(self, other: WindowVectors) -> Floats:
        """Dot products with the rows of `other`, shape (row, row of other)."""
        result = np.empty((len(self), len(other)))
        pieces = self._all_pieces()
        places = np.repeat(np.arange(len(pieces)), [len(piece.rows) for piece in pieces])
        rows = np.concatenate([piece.rows for piece in pieces])
        a, corners = self.weights[rows], np.array([piece.region for piece in pieces])
        table = self.ground.squares
        outside = float(table[-1, -1]) - sum_over(table, corners)[places]
        lone = self._find_lone(pieces)
        for opposite in other._all_pieces():
            b = other.weights[opposite.rows]
            change = RegionChange(opposite.values, opposite.region, b, self.ground)
            meeting = change.meet(corners)
            found = np.outer(a * outside, b)
            found += a[:, None] * (change.products[-1, -1] - change.over(meeting)[places])
            entire = lone if b.any() and change.fits else np.zeros_like(lone)
            maps = change.maps() if entire.any() else None
            first = 0
            for piece, together, whole_window in zip(pieces, meeting, entire, strict=True):
                part = slice(first, first + len(piece.rows))
                first = part.stop
                if whole_window and maps is not None:
                    below = piece.region.cut(maps, whole(self.ground))
                    found[part] += to_numpy(dot_products(flat(piece.values), flat(below)))
                    continue
                if b.any():
                    found[part] += np.outer(piece.products, b)
                if (together[:2] < together[2:]).all():
                    found[part] += change.dots(piece, Region(*together.tolist()))
            result[np.ix_(rows, opposite.rows)] = found
        if self.offsets is not None:
            result -= self._units * np.outer(self.offsets, other._means())
        return result

    def compare(self, others: WindowVectors, groups: Groups) -> tuple[Array, list[Pairs]]:
        """Return products with the rows of `others`, and within groups of rows."""
        return compare_one_by_one(self, others, groups)

    @staticmethod
    def _find_lone(pieces: Sequence[Piece]) -> NDArray[np.bool_]:
        """Return which pieces share their windows, and so the sums over these, with no other."""
        counts = Counter(id(piece.sums) for piece in pieces)
        return np.array([counts[id(piece.sums)] == 1 for piece in pieces], dtype=bool)

    def _all_pieces(self) -> list[Piece]:
        """Return the pieces, and one without cells for the rows that have no window."""
        owners, _ = self._locate()
        alone = np.flatnonzero(owners < 0)
        if not len(alone):
            return self.pieces
        region = Region(0, 0, 0, 0)
        values = self.ground.values.new_zeros((len(alone), 0, 0, self.ground.channels))
        return [*self.pieces, Piece(alone, region, values, Sums(values, region, self.ground))]

    def _means(self) -> Floats:
        """Return each row's mean over its units, or what of it was removed."""
        if self.offsets is not None:
            return self.offsets
        table = self.ground.table
        totals = self.weights * float(table[-1, -1].sum())
        for piece in self.pieces:
            inside = float(sum_over(table, piece.region).sum())
            totals[piece.rows] += piece.totals - self.weights[piece.rows] * inside
        return totals / self._units

    # --- differences ------------------------------------------------------------------------

    def minus(self, other: WindowVectors) -> WindowVectors:
        """Return these rows less the single row of `other`."""
        if self.offsets is not None:
            raise InputError("rows that are centred already cannot be reduced; subtract first")
        removed = float(other.weights[0])
        weights = self.weights - removed
        result = WindowVectors(self.ground, weights, exact=self.exact)
        beyond = other.pieces[0].region if other.pieces else None
        without = set(range(len(self)))
        for piece in self.pieces:
            without -= set(piece.rows.tolist())
            region = piece.region if beyond is None else piece.region.join(beyond)
            values = self._on(region, piece)
            values = values - other._on(region, other.pieces[0] if other.pieces else None)
            result._add_piece(piece.rows, region, values.to(self._dtype))
        if beyond is not None and without:
            rows = np.array(sorted(without))
            base = self._on(beyond, None, len(rows), self.weights[rows])
            values = base - other._on(beyond, other.pieces[0])
            result._add_piece(rows, beyond, values.to(self._dtype))
        return result

    def centred(self) -> WindowVectors:
        """Return these rows, each less its own mean over units.

        Means are removed from the products, which are then in double precision: of a row that
        hardly varies the products are large, and what is left of them would be rounding.
        """
        result = WindowVectors(self.ground, self.weights, exact=True)
        for piece in self.pieces:
            result._add_piece(piece.rows, piece.region, piece.values.double())
        result.offsets = self._means()
        return result

    def _on(
        self,
        region: Region,
        piece: Piece | None,
        rows: int = 1,
        weights: Floats | None = None,
    ) -> Tensor:
        """Return the rows of a piece (or rows without) on a larger rectangle, a copy."""
        if weights is None:
            weights = self.weights[:1] if piece is None else self.weights[piece.rows]
        if piece is not None and piece.region == region:
            return piece.values.to(self._dtype, copy=True)
        below = region.cut(self.ground.values, whole(self.ground)).to(self._dtype)
        factors = torch.as_tensor(weights, dtype=self._dtype, device=below.device)
        values = factors[:, None, None, None] * below[None]
        if piece is not None:
            piece.region.cut(values, region).copy_(piece.values)
        return values

    def _add_piece(self, rows: NDArray[np.int64], region: Region, values: Tensor) -> None:
        self.pieces.append(Piece(rows, region, values, Sums(values, region, self.ground)))

    # --- sums and copies --------------------------------------------------------------------

    def zeros(self, rows: int) -> WindowVectors:
        """Return `rows` zero vectors of the same length."""
        offsets = None if self.offsets is None else np.zeros(rows)
        return WindowVectors(self.ground, np.zeros(rows), [], self.exact, offsets)

    def assign(self, row: int, other: WindowVectors) -> None:
        """Write the rows of `other` into the rows from `row` on."""
        replaced = np.arange(row, row + len(other))
        self.weights[replaced] = other.weights
        if self.offsets is not None:
            self.offsets[replaced] = other._means()
        alone = np.ones(len(other), dtype=bool)
        for piece in other.pieces:
            alone[piece.rows] = False
            self._hold(piece.rows + row, piece)
        for mine in self.pieces:
            found = np.isin(mine.rows, replaced[alone])
            if found.any():
                base = self._on(mine.region, None, int(found.sum()), self.weights[mine.rows[found]])
                mine.values[torch.from_numpy(found).to(base.device)] = base
                mine.sums = Sums(mine.values, mine.region, self.ground)

    def _hold(self, rows: NDArray[np.int64], given: Piece) -> None:
        """Take over the windows of a piece, into one that covers the same cells."""
        others = [piece for piece in self.pieces if piece.region != given.region]
        mine = [piece for piece in self.pieces if piece.region == given.region]
        self.pieces, self._located = [], None
        for piece in others:
            kept = ~np.isin(piece.rows, rows)
            if kept.all():
                self.pieces.append(piece)
            elif kept.any():
                values = piece.values[torch.from_numpy(kept).to(piece.values.device)]
                self._add_piece(piece.rows[kept], piece.region, values)
        if mine and np.isin(rows, mine[0].rows).all():
            held, values = mine[0].rows, mine[0].values
        else:
            taken = [piece.rows for piece in self.pieces]
            held = np.setdiff1d(np.arange(len(self)), np.concatenate([[], *taken]))
            values = self._on(given.region, None, len(held), self.weights[held])
            for piece in mine:
                values[torch.from_numpy(np.searchsorted(held, piece.rows))] = piece.values
        places = torch.from_numpy(np.searchsorted(held, rows)).to(values.device)
        values[places] = given.values.to(values.dtype)
        self._add_piece(held, given.region, values)

    def take(self, rows: Sequence[int]) -> WindowVectors:
        """Return some of the rows."""
        index = np.asarray(rows, dtype=np.int64)
        offsets = None if self.offsets is None else self.offsets[index]
        result = WindowVectors(self.ground, self.weights[index], [], self.exact, offsets)
        owners, places = self._locate()
        owner = owners[index]
        for number in dict.fromkeys(owner.tolist()):
            if number < 0:
                continue
            piece, inside = self.pieces[number], np.flatnonzero(owner == number)
            which = places[index[inside]]
            chosen = which if piece.chosen is None else piece.chosen[which]
            first, n = int(which[0]), len(which)
            if n == 1 or np.array_equal(which, np.arange(first, first + n)):
                values = piece.values[first : first + n]
            else:
                values = piece.values[torch.from_numpy(which).to(piece.values.device)]
            result.pieces.append(Piece(inside, piece.region, values, piece.sums, chosen))
        return result

    def _locate(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each row's piece, -1 for none, and its place in it."""
        known = len(self.pieces)
        if self._located is None or self._located[0] != known:
            owners, places = np.full(len(self), -1), np.zeros(len(self), dtype=np.int64)
            for number, piece in enumerate(self.pieces):
                owners[piece.rows] = number
                places[piece.rows] = np.arange(len(piece.rows))
            self._located = (known, owners, places)
        return self._located[1], self._located[2]

    def expand(self) -> Tensor:
        """Return the rows as whole vectors, shape (row, unit); means are not removed."""
        everything = whole(self.ground)
        values = self._on(everything, None, len(self), self.weights)
        for piece in self.pieces:
            rows = torch.from_numpy(piece.rows).to(values.device)
            values[rows] = self._on(everything, piece)
        if self.offsets is not None:
            raise InputError("centred rows are not held whole; ask for the rows before that")
        return values.permute(0, 3, 1, 2).flatten(1)
