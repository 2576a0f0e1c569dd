"""Hand joints from one depth image: python examples/hand_from_depth.py [FILE.png fx,fy,cx,cy]"""

import sys

from dgpose import HandEstimator
from dgpose.data.depth_io import read_depth
from dgpose.data.synthetic_hands import SyntheticHands

if len(sys.argv) == 3:
    depth, camera = read_depth(sys.argv[1]).depth, sys.argv[2]  # uint16 mm
else:
    frame = SyntheticHands(seed=0, poses="kinematic").frame(0)
    depth, camera = frame.depth, frame.camera

estimator = HandEstimator.load()
pose = estimator(depth, camera)  # the hand is found by itself
if pose.found:
    for name, (x, y, z) in zip(estimator.skeleton.joints, pose.joints_mm, strict=True):
        print(f"{name:12s} {x:8.1f} {y:8.1f} {z:8.1f} mm  (right, up, forward)")
print(f"found {pose.found} {pose.reason}, {pose.timings['total']:.2f} ms")
