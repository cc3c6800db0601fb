"""Values to bytes and back, exactly or not at all."""

from __future__ import annotations

from batche.codecs.base import Codec
from batche.codecs.builtin import AutoCodec, MsgpackCodec, PickleCodec, codec, format_name
from batche.codecs.given import held

__all__ = ["AutoCodec", "Codec", "MsgpackCodec", "PickleCodec", "codec", "format_name", "held"]
