"""Fill a cache before it is needed, with a bar; stopped and started again it goes on where it was.

Run it with ``python examples/warm.py``. It needs tqdm.
"""

from __future__ import annotations

from collections.abc import Iterator

from tqdm import tqdm

from batche import cache_batch_variable

TEXTS = 5_000


@cache_batch_variable("texts", version="1")
def measure(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def texts() -> Iterator[str]:
    return (f"text {number}" for number in range(TEXTS))


def main() -> None:
    first = list(texts())[:2_000]
    print(f"{measure.cache_warm(tqdm(first, desc='some'))} computed")
    print(f"{measure.cache_warm(tqdm(texts(), desc='all', total=TEXTS))} computed")
    print(f"{measure.cache_info().currsize} there")


if __name__ == "__main__":
    main()
