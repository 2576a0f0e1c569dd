"""Inverse interpolation in numbers: `python -m experiments.dpig.inversion`.

The noise that a mapper turns into the code of an unseen image (rendered people of the test part):
how far the found code is from the image's, over its length, by steps and restarts; beside it the
distance of codes that are drawn, and of codes that a mapper made itself, for which a noise is known
to exist. What the distance costs in the image is its PSNR against the image decoded from the true
codes and against the true image.

Writes experiments/results/dpig_inversion.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpose.data.person_sources import read_people
from dgpose.inference.code_inversion import InversionConfig, invert_codes
from dgpose.metrics.dpig_evaluation import People, drawable
from dgpose.metrics.image_quality import psnr
from dgpose.model_zoo import model_path
from dgpose.models.dpig import DPIG, Factor, load_dpig
from experiments.report import print_header, save_results, table_row

STEPS = (25, 100, 400)
RESTARTS = (1, 8)


@torch.no_grad()
def _decoded(model: DPIG, people: People, factor: Factor, code: Tensor) -> Tensor:
    """The images with one of their codes replaced."""
    foreground, background = model.encode_images(*people)
    pose = people.keypoints_px, people.visible
    if factor == "foreground":
        foreground = code
    elif factor == "background":
        background = code
    else:
        pose = model.decode_pose(code)
    return model.decode(foreground, background, *pose)


def measure(model: DPIG, people: People) -> list[dict[str, Any]]:
    """A row for each factor, number of restarts and number of steps."""
    with torch.no_grad():
        codes = model.encode(*people)
    results: list[dict[str, Any]] = []
    for factor in drawable(model):
        own = getattr(codes, factor)
        with torch.no_grad():
            made = model.sample(factor, len(own), torch.Generator().manual_seed(1))
        exact = _decoded(model, people, factor, own)
        for restarts in RESTARTS:
            for steps in STEPS:
                config = InversionConfig(restarts=restarts, steps=steps)
                start = time.process_time()
                found = invert_codes(model, factor, own, config=config)
                seconds = time.process_time() - start
                again = invert_codes(model, factor, made, config=config)
                images = _decoded(model, people, factor, found.codes.detach())
                results.append(
                    {
                        "factor": factor,
                        "restarts": restarts,
                        "steps": steps,
                        "error": float(found.error.median()),
                        "drawn_error": float(found.drawn_error.median()),
                        "mapped_error": float(again.error.median()),
                        "psnr_to_decoded": float(psnr(images, exact).median()),
                        "psnr_to_true": float(psnr(images, people.images).median()),
                        "decoded_psnr": float(psnr(exact, people.images).median()),
                        "seconds_an_image": seconds / len(own),
                    }
                )
                print(results[-1], flush=True)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="dpig_small", help="a shipped DPIG or a weight file")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_dpig(model_path(args.model))
    pool = read_people(
        "rendered", args.data, split="test", size=model.config.size, count=args.images
    )
    results = measure(model, People.of(pool))
    save_results("dpig_inversion", {"model": args.model, "images": len(pool), "results": results})
    columns = {
        "error": 3, "drawn_error": 3, "mapped_error": 3, "psnr_to_decoded": 2, "psnr_to_true": 2,
        "decoded_psnr": 2, "seconds_an_image": 3,
    }  # fmt: skip
    print_header(["factor", "restarts, steps", *(name.replace("_", " ") for name in columns)])
    for row in results:
        spent = f"{row['restarts']}, {row['steps']}"
        cells = [f"{row[name]:.{digits}f}" for name, digits in columns.items()]
        print(table_row([row["factor"], spent, *cells]))


if __name__ == "__main__":
    main()
