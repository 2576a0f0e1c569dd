"""Hand joints from one depth image."""

from dgpose import HandEstimator
from dgpose.data.synthetic_hands import SyntheticHands

# A rendered frame; a real one: depth = dgpose.data.depth_io.read_depth("frame.png").depth
frame = SyntheticHands(seed=0, poses="kinematic").frame(0)

estimator = HandEstimator.load()
pose = estimator(frame.depth, camera=frame.camera)  # uint16 mm; (fx, fy, cx, cy) in pixels

if pose.found:
    for name, (x, y, z) in zip(estimator.skeleton.joints, pose.joints_mm, strict=True):
        print(f"{name:10s} {x:7.1f} mm right {y:7.1f} up {z:7.1f} forward")
else:
    print("no hand:", pose.reason)
print(f"{pose.timings['total']:.2f} ms")
