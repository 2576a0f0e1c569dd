"""Hand joints in crops that another tool has made."""

import torch

import dgpose
from dgpose.data.cameras import project
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.skeletons import MEDIAPIPE21
from dgpose_ext import depth_crop

# A rendered frame, and a box around its hand such as a detector gives.
frame = SyntheticHands(seed=8, poses="kinematic").frame(0)
u, v, mm = project(frame.joints_mm[34], frame.camera).tolist()
left, top = round(u) - 110, round(v) - 120
box = frame.depth[top : top + 230, left : left + 220]  # uint16 mm

# Cut out of the frame: the camera's focal length says how many millimetres the box shows.
pose = dgpose.hand_from_crop(box, focal_px=frame.camera.fx, skeleton=MEDIAPIPE21)
if pose.found:
    for name, (x, y) in zip(pose.skeleton.joints, pose.joints_px, strict=True):
        print(f"{name:10s} column {left + x:5.1f}, row {top + y:5.1f} of the frame")
else:
    print("no hand:", pose.reason)

# Resampled, and normalised over a cube of 250 mm, as many data sets' tools do it.
center = torch.tensor([(u, v, mm)])
crop = depth_crop(torch.from_numpy(frame.depth)[None], center, frame.camera, 250.0, 96)[0, 0]
estimator = dgpose.load("accurate", cube_mm=250.0)  # once, for many crops
again = estimator.from_crop(crop, center_mm=mm)
if again.found:
    x, y, z = again.joints_mm[0]
    print(f"little finger's tip: {x:.0f} mm right of the centre, {y:.0f} up, {z:.0f} behind it")
