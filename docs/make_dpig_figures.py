"""The figures of docs/systems/dpig.md: python docs/make_dpig_figures.py [MODEL]

Rendered people of the test part, whom no model has learned from, in kinematic poses.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dgpose.data.image_files import save_picture
from dgpose.data.person_pool import rendered_people
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.inference.person_factors import PersonFactors
from dgpose.inference.virtual_market import virtual_market
from dgpose.viz.person import grid_sheet
from dgpose.viz.person_factors import (
    identities_sheet,
    inversion_sheet,
    variation_sheet,
    way_animation,
    way_sheet,
)
from dgpose_ext.tensor_file import write_bytes_atomically

OUT = Path(__file__).parent / "systems" / "img"
SHOWN = (0, 1, 4, 7, 9, 13)  # of the test part: standing, walking, sitting, from all sides
PAIR = (1, 4)


def main(model: str = "dpig_small") -> None:
    torch.set_num_threads(1)
    people = PersonFactors.load(model)
    name = Path(model).name
    rendered = SyntheticPeople(0, poses="kinematic", split="test", size=people.image_size)
    pool = rendered_people(rendered, 64, source="rendered people")
    images = pool.images.float() / 255
    poses = torch.where(pool.visible[..., None], pool.keypoints_px, torch.nan)
    names = [f"person {row}" for row in SHOWN]

    choices = [*people.factors, "all"]
    drawn = [
        people.sample(images[row], poses[row], vary=None if choice == "all" else choice, count=8)
        for row in PAIR
        for choice in choices
    ]
    title = f"{name}: factors drawn, the others kept"
    pair = [f"person {row}" for row in PAIR]
    sheet = variation_sheet(GeneratedPeople.joined(drawn), pair, title, choices)
    save_picture(OUT / "dpig_sample.jpg", sheet)

    shown = list(SHOWN)
    guided = [people.pose_guided(images[row], poses[row], poses[shown]) for row in shown]
    title = f"{name}: the people of the rows in the poses of the columns"
    grid = grid_sheet(GeneratedPeople.joined(guided), names, title, names)
    save_picture(OUT / "dpig_pose_guided.jpg", grid)

    ways = {choice: people.interpolate(vary=None if choice == "all" else choice, count=10)
            for choice in choices}  # fmt: skip
    save_picture(OUT / "dpig_interpolate.jpg", way_sheet(ways, f"{name}: between two draws"))

    both, their = images[list(PAIR)], poses[list(PAIR)]
    whole = people.invert(both, their, count=12)
    title = f"{name}: two images through noise, and the way between them"
    save_picture(OUT / "dpig_invert.jpg", inversion_sheet(whole, pair, title))
    motion = people.invert(both, their, factors="pose", count=12)
    write_bytes_atomically(OUT / "dpig_motion.gif", way_animation({"pose": motion.frames}))
    for factor, found in whole.found.items():
        print(f"{factor}: code error {found.error.tolist()}, drawn {found.drawn_error.tolist()}")
    print(f"PSNR {whole.psnr.tolist()} dB, of the codes {whole.rebuilt_psnr.tolist()}")
    print(f"pose of the motion: {motion.pose_error_px.tolist()} px")  # type: ignore[union-attr]

    market = virtual_market(people.model, pool, 6, backgrounds=12)
    title = f"{name}: virtual Market, a person a row"
    save_picture(OUT / "dpig_virtual_market.jpg", identities_sheet(market, title))


if __name__ == "__main__":
    main(*sys.argv[1:])
