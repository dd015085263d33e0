"""The Jacobian of an autoencoder by its bottleneck: the m × m matrix J_encoder(x) J_decoder(z), z = encoder(x).

Its eigenvalues are those of J(x) = J_decoder(z) J_encoder(x), but for zeros.
"""

from __future__ import annotations

from torch import Tensor

from memrecon_fast.attractors.jacobian import Linearisation
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.function import distance, trial_images
from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.transfer import working_on

_SAME = 1e-4
"""So far, as `function.distance`, the two halves may be from the whole: other kernels round otherwise."""


class Bottleneck:
    """The two halves of an autoencoder: decoder(encoder(x)) = f(x).

    Raises ValueError where they are not its halves.
    """

    def __init__(self, prox: Prox, encoder: Autoencoder, decoder: Autoencoder) -> None:
        self._prox, self._encoder, self._decoder = prox, encoder, decoder
        images = trial_images(min(4, prox.most_rows), prox.image_shape).to(prox.device)
        rows = prox.to_rows(images)
        with working_on(prox.device):
            codes = encoder(prox.as_images(rows))
            self._code_shape = codes.shape[1:]
            self.entries = codes[0].numel()
            """m, of a code."""
            apart = distance(prox(rows), self._decode(self._encode(rows)))
        if not apart <= _SAME:
            raise ValueError(
                f"encoder and decoder are not the two halves of the autoencoder: decoder(encoder(x)) differs from it "
                f"by {apart:.1g} in the mean over the pixels"
            )

    def at(self, rows: Tensor) -> _Product:
        """The matrices at these images, rows [n, d]."""
        encoder = Linearisation(self._encode, self._prox, rows)
        return _Product(encoder, Linearisation(self._decode, self._prox, encoder.value))

    def _encode(self, rows: Tensor) -> Tensor:
        return self._encoder(self._prox.as_images(rows)).flatten(1)

    def _decode(self, codes: Tensor) -> Tensor:
        return self._prox.to_rows(self._decoder(codes.view(-1, *self._code_shape)))


class _Product:
    """J_encoder J_decoder: codes [n, m] → [n, m]."""

    def __init__(self, encoder: Linearisation, decoder: Linearisation) -> None:
        self._encoder, self._decoder = encoder, decoder

    def times(self, v: Tensor) -> Tensor:
        return self._encoder.times(self._decoder.times(v))

    def transposed(self, v: Tensor) -> Tensor:
        return self._decoder.transposed(self._encoder.transposed(v))
