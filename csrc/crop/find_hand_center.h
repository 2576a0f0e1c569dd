// find_hand_center: where the hand is, if the hand is the thing nearest to the camera.
//
// 1. [near, far] is cut into `slabs` equal slabs. The nearest slab that has a connected component
//    (8 neighbours) of more than `min_pixels` pixels gives the start: the mean (x, y, depth) of its
//    largest component (equal sizes: the one that starts first in row order).
// 2. `refinements` times: the mean (x, y, depth) of all pixels in [near, far] inside the cube of
// cube_mm
//    around the current centre (columns with |x - u| <= cube_mm/2 * fx / mm, rows likewise, depths
//    with |z - mm| <= cube_mm/2). If that holds no pixel, the component was no hand (a frame around
//    nothing): the search goes on with the next slab.
//
// Depth counts in units of 1/16 mm: key = trunc(16 z + 0.5) for 0 < z < 65536, 0 (missing) for all
// else, bounds rounded to the nearest unit, half to even. All sums are integers: the result has the
// same bits on every instruction set, in the reference, and for uint16 and float32 frames of equal
// values.
#pragma once

#include <cstdint>
#include <vector>

#include "crop/depth_image.h"

namespace dgpose {

struct HandSearch {
  double fx, fy;                 // focal lengths in pixels
  double near = 10, far = 1500;  // mm
  double cube_mm = 250;
  int64_t min_pixels = 200;
  int64_t slabs = 20;
  int64_t refinements = 5;
};

// Working memory: grows to the needs of the frames it has seen, so that a stream allocates nothing.
struct HandSearchScratch {
  struct Run {  // pixels [begin, end) of a row
    int32_t row, begin, end, parent;
    int64_t area;  // of the component, at its root
  };
  std::vector<Run> runs;
  std::vector<int32_t> row_min;  // nearest key of a row that is not searched yet
  std::vector<uint8_t> inside;   // one row: 1 where the depth lies in the slab
};

// False if no hand is found; center is left alone then. center: u, v (pixels), mm. Height and width
// below 2^31.
template <class T>
bool find_hand_center_cpu(const DepthImage<T>& image, const HandSearch& search,
                          HandSearchScratch& scratch, double center[3]);

}  // namespace dgpose
