"""HandNet's layers against the roofline: `python -m benchmarks.hand_net_layers [--repeats N]`.

For every network and precision, the time of each step, its multiply-adds (of the direct
convolution) a second, and their share of the core's peak, measured in the same process at that
precision. Winograd's convolutions need fewer multiply-adds and may pass 100 %. Steps without
multiply-adds (input, sums, pooling) have a time alone. Writes results/hand_net_layers.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from .hand_engines import hand_net, spend_multiply_adds
from .hand_networks import Network, networks
from .harness import RESULTS, environment, write_json


def peak(precision: str) -> float:
    """Multiply-adds a second of one core: the best of 20 runs of some milliseconds."""
    count, best = 100_000_000, float("inf")
    for _ in range(20):
        start = time.perf_counter()
        spend_multiply_adds(count, precision)
        best = min(best, time.perf_counter() - start)
    return count / best


def layers(network: Network, precision: str, limit: float, repeats: int) -> list[dict[str, Any]]:
    """One row a step: the median over 7 profiles of `repeats` crops."""
    net = hand_net(network, precision)
    net.profile(repeats)
    profiles = [net.profile(repeats) for _ in range(7)]
    rows = []
    for step in zip(*profiles, strict=True):
        name, _, multiply_adds = step[0]
        seconds = sorted(us for _, us, _ in step)[len(step) // 2] * 1e-6
        share = multiply_adds / limit / seconds if multiply_adds and seconds > 0 else None
        rows.append(
            {
                "step": name,
                "median_s": seconds,
                "multiply_adds": multiply_adds,
                "share_of_peak": share,
            }
        )
    return rows


def table(result: dict[str, Any]) -> str:
    """One network at one precision as text."""
    total = sum(row["median_s"] for row in result["layers"])
    lines = [
        f"{result['network']}, {result['precision']}: {total * 1e6:.1f} us, "
        f"peak {result['peak_multiply_adds_per_s'] / 1e9:.0f} G multiply-adds/s"
    ]
    for row in result["layers"]:
        share = row["share_of_peak"]
        rate = row["multiply_adds"] / row["median_s"] / 1e9 if share else 0.0
        tail = f"{rate:>9.1f} G/s  {share:>6.0%} of the peak" if share else ""
        lines.append(f"  {row['step']:<44} {row['median_s'] * 1e6:>9.2f} us {tail}".rstrip())
    return "\n".join(lines)


def measure(repeats: int) -> list[dict[str, Any]]:
    """All networks at all precisions."""
    from dgpose_ext.hand_net.engine import PRECISIONS

    results = []
    for precision in PRECISIONS:
        limit = peak(precision)
        for network in networks():
            result = {
                "network": network.name,
                "precision": precision,
                "peak_multiply_adds_per_s": limit,
                "layers": layers(network, precision, limit, repeats),
            }
            results.append(result)
            print(table(result), flush=True)
    return results


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=300, help="crops of one profile")
    results = measure(parser.parse_args().repeats)
    document = {"environment": environment(), "results": results}
    write_json(document, RESULTS / "hand_net_layers.json")
    print(f"wrote {RESULTS / 'hand_net_layers.json'}")


if __name__ == "__main__":
    main()
