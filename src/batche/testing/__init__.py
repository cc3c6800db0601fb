"""What tests of programs and of stores need: caching switched off, computed items told, a suite for any store."""

from __future__ import annotations

from batche.testing._contract import StoreContract
from batche.testing._disabled import disabled
from batche.testing._lru import LruStoreContract
from batche.testing._recording import Recording, recording
from batche.testing._scannable import ScannableStoreContract

__all__ = ["LruStoreContract", "Recording", "ScannableStoreContract", "StoreContract", "disabled", "recording"]
