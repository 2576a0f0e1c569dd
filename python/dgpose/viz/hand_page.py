"""The page of `dgpose hand live`: depth picture, skeleton, a 3D view and figures, in a browser.

Built on viser, which serves one file that brings its own scripts and fonts: the page needs no
network beyond this machine. viser keeps the last value of every element and sends nothing twice, so
a slow browser skips frames as well.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import Camera, unproject
from dgpose.data.depth_sources import SourceFrame
from dgpose.skeletons import NYU36
from dgpose.viz.drawing import BACKGROUND, Picture
from dgpose.viz.hand import colour_depth, live_picture

if TYPE_CHECKING:
    from dgpose.inference.hand_live import LiveNumbers
    from dgpose.inference.hand_run import HandResult

__all__ = ["HandPage", "points_around"]

_POINTS = 4000
_FIGURES_EVERY_S = 0.2
_FOLLOW = 0.12
"""Share of the way to the hand that the middle of the 3D view goes with each frame."""

_JOINT_M = 0.0042
_BONE_M = 0.0026
_PANEL_PX = 660
_STATES = {
    "tracking": ("#2f9e44", "following the hand"),
    "searching": ("#e8a33d", "no hand in sight"),
    "bad frame": ("#e8590c", "bad frame"),
    "no frames": ("#e03131", "no frames"),
}


class HandPage:
    """A page that shows one stream; it is served until `close`.

    Args:
        title: headline of the panel.
        about: what runs, as (name, value) lines under the figures.
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: TCP port; a later one is taken where it is in use; 0: any free one.
        cube_mm: edge of the cube around the hand.
        smoothing: whether the box "Smoothing" is ticked at first.

    Raises:
        ValueError: viser is not installed.
        OSError: the host is no address of this machine.
    """

    def __init__(
        self,
        title: str,
        about: list[tuple[str, str]],
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        cube_mm: float = 300.0,
        smoothing: bool = False,
    ) -> None:
        try:
            import trimesh  # viser brings it
            import viser
        except ModuleNotFoundError:
            raise ValueError(
                "the live page needs viser, which is not installed: pip install 'dgpose-ext[live]'"
            ) from None
        _require_own_address(host)
        self._cube_mm = cube_mm
        self._middle: npt.NDArray[np.float64] | None = None
        self._figures_due = 0.0
        with _quiet():
            self._server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
        gui, scene = self._server.gui, self._server.scene
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        gui.main_panel.dock_left()
        gui.main_panel.set_width(_PANEL_PX)
        self._state = gui.add_html(_banner("no frames", "waiting for the first frame"))
        blank: Picture = np.full((480, 640, 3), BACKGROUND, np.uint8)
        self._picture = gui.add_image(blank, format="jpeg", jpeg_quality=85)
        self._figures = gui.add_html("")
        self._smoothing = gui.add_checkbox(
            "Smoothing", smoothing, hint="One-Euro filter: calmer at rest, a little lag."
        )
        self._surface = gui.add_checkbox(
            "Points", True, hint="What the camera measured, in the 3D view."
        )
        gui.add_html(_about(about))

        # Right-handed, in metres: the camera looks along -z.
        scene.set_up_direction("+y")
        half = cube_mm / 2000
        scene.add_grid(
            "/floor", 4 * half, 4 * half, plane="xz", position=(0, -half, 0), cell_size=half / 3
        )
        nothing, colour = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8)
        self._cloud = scene.add_point_cloud(
            "/surface", nothing, colour, point_size=0.0008, point_shape="circle", visible=False
        )
        joints = trimesh.creation.icosphere(subdivisions=2, radius=_JOINT_M)
        self._joints = scene.add_batched_meshes_simple(
            "/joints",
            joints.vertices,
            joints.faces,
            np.tile(np.array([1.0, 0.0, 0.0, 0.0]), (len(NYU36), 1)),
            np.zeros((len(NYU36), 3)),
            batched_colors=_linear(NYU36.joint_colors),
            lod="off",
            visible=False,
        )
        bone = trimesh.creation.cylinder(radius=_BONE_M, height=1.0, sections=12)
        turns, middles, scales = _bones(np.zeros((len(NYU36), 3), np.float32))
        self._bones = scene.add_batched_meshes_simple(
            "/bones",
            bone.vertices,
            bone.faces,
            turns,
            middles,
            batched_scales=scales,
            batched_colors=_linear(NYU36.edge_colors),
            lod="off",
            visible=False,
        )
        view = self._server.initial_camera
        view.position, view.look_at, view.fov = (0.17, 0.09, 0.36), (0.0, 0.0, 0.0), 0.9

    @property
    def url(self) -> str:
        """Where the page is."""
        host = self._server.get_host()
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.get_port()}"

    @property
    def smoothing(self) -> bool:
        """Whether the box is ticked."""
        return bool(self._smoothing.value)

    def show(
        self, frame: SourceFrame, result: HandResult, numbers: LiveNumbers, tracking: bool
    ) -> None:
        """Show a frame and what became of it."""
        pose = result.pose
        if pose is None or frame.depth is None or frame.camera is None:
            # The last picture stays.
            self._state.content = _banner("bad frame", f"{result.name}: {result.problem}")
            self._show_figures(numbers)
            return
        if not self._server.get_clients():
            return  # nobody looks
        with self._server.atomic():
            self._picture.image = live_picture(
                frame.depth,
                frame.camera,
                pose.joints_px if pose.found else None,
                pose.center,
                cube_mm=self._cube_mm,
            )
            text = f"confidence {pose.confidence:.2f}" if tracking else pose.reason
            banner = _banner("tracking" if tracking else "searching", text)
            if self._state.content != banner:
                self._state.content = banner
            self._show_scene(frame.depth, frame.camera, pose.joints_mm if pose.found else None)
        self._show_figures(numbers)

    def wait(self, problem: str, numbers: LiveNumbers) -> None:
        """Say why there are no frames; the last ones stay."""
        self._state.content = _banner("no frames", f"{problem}; waiting for them to come back")
        self._show_figures(numbers, now=True)

    def close(self) -> None:
        """End the page."""
        with _quiet():
            self._server.stop()

    def _show_figures(self, numbers: LiveNumbers, *, now: bool = False) -> None:
        # Figures that change with every frame cannot be read.
        if now or time.monotonic() >= self._figures_due:
            self._figures_due = time.monotonic() + _FIGURES_EVERY_S
            self._figures.content = _figures(numbers)

    def _show_scene(
        self, depth: npt.NDArray[Any], camera: Camera, joints_mm: npt.NDArray[Any] | None
    ) -> None:
        self._joints.visible = self._bones.visible = joints_mm is not None
        if joints_mm is None:
            self._cloud.visible = False
            return
        middle = joints_mm.mean(axis=0, dtype=np.float64)
        if self._middle is None or np.abs(middle - self._middle).max() > self._cube_mm:
            self._middle = middle
        self._middle = self._middle + _FOLLOW * (middle - self._middle)
        joints = self._placed(joints_mm)
        self._joints.batched_positions = joints
        turns, middles, scales = _bones(joints)
        self._bones.batched_wxyzs, self._bones.batched_positions = turns, middles
        self._bones.batched_scales = scales
        points, colours = points_around(depth, camera, middle, self._cube_mm)
        self._cloud.visible = bool(len(points)) and self._surface.value
        if self._cloud.visible:
            self._cloud.points, self._cloud.colors = self._placed(points), colours

    def _placed(self, points_mm: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Millimetres from the camera to the page's metres, around the middle of the view."""
        placed: npt.NDArray[np.float32] = (points_mm - self._middle).astype(np.float32)
        return placed * np.array([1e-3, 1e-3, -1e-3], np.float32)


def points_around(
    depth: npt.NDArray[Any], camera: Camera, middle: npt.NDArray[np.float64], cube_mm: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """What was measured in the cube around a place (x, y, z), at most 4,000 points of it.

    Returns:
        points `[N, 3]` in mm and their colours `[N, 3]`; N may be 0.
    """
    half = cube_mm / 2
    x, y, z = middle
    reach = half / z
    u, v = camera.cx + camera.fx * x / z, camera.cy - camera.fy * y / z
    rows = slice(max(int(v - camera.fy * reach), 0), max(int(v + camera.fy * reach) + 1, 0))
    columns = slice(max(int(u - camera.fx * reach), 0), max(int(u + camera.fx * reach) + 1, 0))
    window = np.asarray(depth[rows, columns], np.float32)
    near, far = max(z - half, 0.0), z + half
    row, column = np.nonzero((window > near) & (window < far))
    if not len(row):
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    step = -(-len(row) // _POINTS)
    row, column = row[::step], column[::step]
    mm = window[row, column]
    pixels = np.stack([column + columns.start, row + rows.start, mm], axis=1)
    points: npt.NDArray[np.float32] = unproject(pixels, camera).astype(np.float32)
    return points, colour_depth(mm[None], near, far)[0]


def _linear(colors: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """Colours as viser wants them for meshes in a batch: in proportion to the light."""
    levels: npt.NDArray[np.uint8] = np.rint(255 * (np.array(colors) / 255) ** 2.2).astype(np.uint8)
    return levels


def _bones(
    joints: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rotation (w, x, y, z), middle and scale of a unit cylinder along z, for each bone."""
    first, second = joints[np.array(NYU36.edges).T]
    along = second - first
    length = np.linalg.norm(along, axis=1, keepdims=True)
    x, y, z = (along / np.maximum(length, 1e-9)).T
    # Half way between z and the bone, in the plane of both; a bone along -z turns about x.
    turns = np.stack([1 + z, np.where(z < -0.9999, 1.0, -y), x, np.zeros_like(x)], axis=1)
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    ones = np.ones_like(length)
    return turns, (first + second) / 2, np.concatenate([ones, ones, length], axis=1)


def _banner(state: str, text: str) -> str:
    colour, words = _STATES[state]
    return (
        f'<div id="state" style="margin:.4em .7em;padding:.45em .8em;border-radius:.4em;'
        f'background:{colour};color:#fff"><b>{words}</b> &nbsp;{escape(text)}</div>'
    )


def _figures(numbers: LiveNumbers) -> str:
    cells = [
        (f"{numbers.frames_per_s:.0f}", "frames/s"),
        (f"{numbers.estimate_ms:.2f} ms", "depth to joints"),
        (f"{numbers.latency_ms:.1f} ms", "arrival to page"),
        (f"{numbers.found:,}", "with a hand"),
        (f"{numbers.not_found:,}", "without"),
        (f"{numbers.dropped:,}", "dropped"),
        (f"{numbers.bad_frame:,}", "bad"),
    ]
    columns = "".join(
        f'<div style="text-align:center"><div style="font-size:1.35em;font-weight:600">{value}'
        f'</div><div style="opacity:.65;font-size:.85em">{name}</div></div>'
        for value, name in cells
    )
    return (
        '<div id="figures" style="display:flex;justify-content:space-between;'
        f'margin:.3em 1em;font-variant-numeric:tabular-nums">{columns}</div>'
    )


def _about(lines: list[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><td style="opacity:.65;padding-right:1em">{escape(name)}</td>'
        f"<td>{escape(value)}</td></tr>"
        for name, value in lines
    )
    return f'<table style="margin:.2em 1em;font-size:.9em">{rows}</table>'


def _require_own_address(host: str) -> None:
    # viser tries ports without end where it cannot listen at all.
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise OSError(f"host must be an address of this machine, got {host!r} ({error})") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """viser prints boxes about itself; the address is ours to print."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
