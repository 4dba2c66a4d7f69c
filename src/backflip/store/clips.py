"""Frames to a clip that every browser plays: VP9 in WebM. Needs the extra `video` (PyAV)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

from backflip.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def encode(frames: Iterable[NDArray[np.uint8]], *, fps: float = 15.0) -> bytes:
    """The bytes of a WebM clip of RGB frames, each (height, width, 3) and 0 … 255; sizes are cut to even numbers of pixels.

    Give them to `Projects.add_media(…, "video/webm")`, and the name it returns is the completion of a query of form "clip".
    Raises UserError without PyAV, without frames, and for frames of different sizes.
    """
    try:
        import av
    except ImportError as problem:
        raise UserError("clips need PyAV; install it with: pip install 'backflip[video]'") from problem
    into = io.BytesIO()
    with av.open(into, "w", format="webm") as container:
        stream, shape = None, None
        for frame in frames:
            height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
            if stream is None:
                shape = frame.shape
                stream = container.add_stream("libvpx-vp9", rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.options = {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "6"}
            if frame.shape != shape:
                raise UserError(f"frames of one clip have one size; {frame.shape} after {shape}")
            picture = av.VideoFrame.from_ndarray(frame[:height, :width], format="rgb24")
            container.mux(stream.encode(picture))
        if stream is None:
            raise UserError("a clip needs at least one frame")
        container.mux(stream.encode(None))
    return into.getvalue()
