// See capsule_depth.h for the maths.
//
// Forward: a task is a tile of 32x32 pixels of one frame. Each thread prepares one capsule (its
// terms, and its pixels within the tile) in shared memory; then each warp takes patches of 8x4
// pixels, one pixel a lane, and finds by one vote which of 32 capsules its patch meets. Capsules
// come in the order of edges, in groups of as many as there are threads; the z-buffer of the tile
// stays in shared memory. The limit is arithmetic: the tests of pixels against capsules.
// Normals: a task is 256 pixels. The limit is memory.
// Backward: a task is one joint of one frame, whose block looks at all parts of the frame for those
// edges that end in the joint. The limit is reading the parts, from L2.
#include "core/cuda_kernel.h"
#include "render/capsule_geometry.h"

namespace dgpose {
namespace {

constexpr int kThreads = 128;
constexpr int kTile = 32, kTilePixels = kTile * kTile;
constexpr int kPatchColumns = 8, kPatchRows = 4;  // pixels of a warp
constexpr int kPitch = kTile + 8;  // of a tile's row in shared memory: no bank conflicts in patches
constexpr int kSurfaceThreads = 256;

// Columns and rows [begin, end) relative to the tile, 0 .. 32. Nothing: all 0.
struct TileRectangle {
  uint8_t x_begin, x_end, y_begin, y_end;
};

__device__ __forceinline__ uint8_t within_tile(int64_t pixel, int64_t origin) {
  return static_cast<uint8_t>(
      min(max(pixel - origin, static_cast<int64_t>(0)), static_cast<int64_t>(kTile)));
}

// Reads the joints of an edge. False where one is outside [0, J): on a GPU nobody has looked at the
// edges before, and such an edge is not drawn.
template <class T>
__device__ bool read_edge(const CapsuleScene<T>& scene, int64_t edge, int64_t* ia, int64_t* ib) {
  *ia = scene.edges[2 * edge];
  *ib = scene.edges[2 * edge + 1];
  return *ia >= 0 && *ia < scene.joint_count && *ib >= 0 && *ib < scene.joint_count;
}

// The capsule's nearest root along the ray (dx, dy, 1) into t. False where the ray misses it.
template <class T>
__device__ __forceinline__ bool nearest_root(const Capsule<T>& c, T dx, T dy, T* t) {
  constexpr T kInfinity = __builtin_huge_val();
  const T dd = dx * dx + (dy * dy + 1);
  const T ox = c.az * dx - c.ax, oy = c.az * dy - c.ay;
  const T od = ox * dx + oy * dy, oo = ox * ox + oy * oy;
  const T ha = od * od - dd * (oo - c.ra2);
  T od_b = 0, hb = -1, gd = 0, go = 0, k2 = 0, k1 = 0, h = -1;
  if (c.has_b) {
    const T ox_b = c.bz * dx - c.bx, oy_b = c.bz * dy - c.by;
    od_b = ox_b * dx + oy_b * dy;
    hb = od_b * od_b - dd * (ox_b * ox_b + oy_b * oy_b - c.rb2);
  }
  if (c.has_cone) {
    gd = c.gx * dx + (c.gy * dy + c.gz);
    go = c.gx * ox + c.gy * oy;
    k2 = c.D * dd - gd * gd;
    k1 = c.D * od - go * gd + gd * c.e_ra;
    h = k1 * k1 - (c.D * oo - go * go + go * c.two_e_ra - c.gg_ra2) * k2;
  }
  if (!(ha >= 0 || hb >= 0 || h >= 0)) return false;

  *t = ha >= 0 ? c.az + (-od - sqrt(ha)) / dd : kInfinity;
  if (hb >= 0) {
    const T t_b = c.bz + (-od_b - sqrt(hb)) / dd;
    if (t_b < *t) *t = t_b;
  }
  if (h >= 0) {
    const T root = (-k1 - sqrt(h)) / k2;
    const T s = go - c.e_ra + root * gd;
    const T t_cone = c.az + root;
    if (0 < s && s < c.D && t_cone < *t) *t = t_cone;
  }
  return true;
}

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 8 : 4)
    capsule_forward(CapsuleScene<T> scene, int64_t tile_rows, int64_t tile_columns, T background,
                    T* depth, int16_t* part) {
  __shared__ Capsule<T> capsules[kThreads];
  __shared__ TileRectangle rectangles[kThreads];
  __shared__ T rays_x[kTile], rays_y[kTile];
  __shared__ T tile_depth[kTile * kPitch];
  __shared__ int16_t tile_part[kTile * kPitch];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  constexpr int kWarps = kThreads / kWarp;

  for_each_task(scene.batch * tile_rows * tile_columns, [&](int64_t task) {
    const int64_t frame = task / (tile_rows * tile_columns);
    const int64_t y0 = task / tile_columns % tile_rows * kTile;
    const int64_t x0 = task % tile_columns * kTile;
    const T* camera = camera_of(scene, frame);
    if (threadIdx.x < kTile) {
      rays_x[threadIdx.x] = (static_cast<T>(x0 + threadIdx.x) - camera[2]) / camera[0];
    } else if (threadIdx.x < 2 * kTile) {
      const int row = threadIdx.x - kTile;
      rays_y[row] = (static_cast<T>(y0 + row) - camera[3]) / camera[1];
    }
    for (int i = threadIdx.x; i < kTile * kPitch; i += kThreads) {
      tile_depth[i] = __builtin_huge_val();
      tile_part[i] = -1;
    }

    for (int64_t first = 0; first < scene.edge_count; first += kThreads) {
      if (first > 0) __syncthreads();  // the group before is drawn
      TileRectangle inside{};
      int64_t ia, ib;
      PixelRectangle r;
      const int64_t edge = first + threadIdx.x;
      if (edge < scene.edge_count && read_edge(scene, edge, &ia, &ib) &&
          make_capsule(scene, frame, ia, ib, &capsules[threadIdx.x], &r)) {
        inside = {within_tile(r.x_begin, x0), within_tile(r.x_end, x0), within_tile(r.y_begin, y0),
                  within_tile(r.y_end, y0)};
      }
      rectangles[threadIdx.x] = inside;
      __syncthreads();

      const int count =
          static_cast<int>(min(scene.edge_count - first, static_cast<int64_t>(kThreads)));
      for (int patch = warp; patch < kTilePixels / kWarp; patch += kWarps) {
        const int patch_x = patch % (kTile / kPatchColumns) * kPatchColumns;
        const int patch_y = patch / (kTile / kPatchColumns) * kPatchRows;
        const int x = patch_x + lane % kPatchColumns, y = patch_y + lane / kPatchColumns;
        const T dx = rays_x[x], dy = rays_y[y];
        T z = tile_depth[y * kPitch + x];
        int16_t shown = tile_part[y * kPitch + x];
        for (int group = 0; group < count; group += kWarp) {
          const TileRectangle mine = rectangles[group + lane];
          unsigned met = __ballot_sync(
              0xFFFFFFFFu, mine.x_begin < patch_x + kPatchColumns && mine.x_end > patch_x &&
                               mine.y_begin < patch_y + kPatchRows && mine.y_end > patch_y);
          while (met != 0) {
            const int i = group + __ffs(static_cast<int>(met)) - 1;
            met &= met - 1;
            T t;
            if (nearest_root(capsules[i], dx, dy, &t) && t < z && 0 < t) {
              z = t;
              shown = static_cast<int16_t>(first + i);
            }
          }
        }
        tile_depth[y * kPitch + x] = z;
        tile_part[y * kPitch + x] = shown;
      }
    }

    __syncthreads();
    const int x = lane;
    if (x0 + x >= scene.width) return;
    for (int y = warp; y < kTile && y0 + y < scene.height; y += kWarps) {
      const int64_t at = (frame * scene.height + y0 + y) * scene.width + x0 + x;
      const int16_t shown = tile_part[y * kPitch + x];
      depth[at] = shown < 0 ? background : tile_depth[y * kPitch + x];
      part[at] = shown;
    }
  });
}

// The joints of the edge that a pixel shows. False for the background, and for what an owner may
// have written into the part map since.
template <class T>
__device__ bool shown_edge(const CapsuleScene<T>& scene, int16_t part, int64_t* ia, int64_t* ib) {
  return part >= 0 && part < scene.edge_count && read_edge(scene, part, ia, ib);
}

template <class T>
__global__ void __launch_bounds__(kSurfaceThreads)
    capsule_normals(CapsuleScene<T> scene, const T* depth, const int16_t* part, T* normals) {
  const int64_t pixels = scene.height * scene.width;
  const int64_t count = scene.batch * pixels;
  for_each_task((count + kSurfaceThreads - 1) / kSurfaceThreads, [&](int64_t task) {
    const int64_t at = task * kSurfaceThreads + threadIdx.x;
    if (at >= count) return;
    const int64_t frame = at / pixels, pixel = at % pixels;
    SurfacePoint<T> point{};
    int64_t ia, ib;
    if (shown_edge(scene, part[at], &ia, &ib)) {
      point =
          surface_point(scene, frame, ia, ib, pixel % scene.width, pixel / scene.width, depth[at]);
    }
    T* out = normals + frame * 3 * pixels + pixel;
    for (int i = 0; i < 3; ++i) out[i * pixels] = point.n[i];
  });
}

template <class T>
__global__ void __launch_bounds__(kSurfaceThreads)
    capsule_backward(CapsuleScene<T> scene, const T* grad_depth, const T* depth,
                     const int16_t* part, T* grad_joints, T* grad_radii) {
  __shared__ unsigned ends_here[(INT16_MAX + 1) / kWarp];  // a bit an edge
  const int64_t pixels = scene.height * scene.width;
  for_each_task(scene.batch * scene.joint_count, [&](int64_t task) {
    const int64_t frame = task / scene.joint_count, joint = task % scene.joint_count;
    for (int64_t first = 0; first < scene.edge_count; first += kSurfaceThreads) {
      const int64_t edge = first + threadIdx.x;
      int64_t ia, ib;
      const bool ends = edge < scene.edge_count && read_edge(scene, edge, &ia, &ib) &&
                        (ia == joint || ib == joint);
      const unsigned bits = __ballot_sync(0xFFFFFFFFu, ends);
      if (threadIdx.x % kWarp == 0) ends_here[edge / kWarp] = bits;
    }
    __syncthreads();

    double sums[4] = {};  // gradient of x, y, z, radius
    for (int64_t pixel = threadIdx.x; pixel < pixels; pixel += kSurfaceThreads) {
      const int64_t at = frame * pixels + pixel;
      const int16_t shown = part[at];
      if (!(shown >= 0 && shown < scene.edge_count)) continue;
      if (!(ends_here[shown / kWarp] >> shown % kWarp & 1) || grad_depth[at] == 0) continue;
      const int64_t ia = scene.edges[2 * shown], ib = scene.edges[2 * shown + 1];
      const SurfacePoint<T> p =
          surface_point(scene, frame, ia, ib, pixel % scene.width, pixel / scene.width, depth[at]);
      const double facing = p.n[0] * p.ray[0] + p.n[1] * p.ray[1] + p.n[2] * p.ray[2];
      if (!(facing < -kGrazing)) continue;
      const double scale = static_cast<double>(grad_depth[at]) / facing;
      const double s = p.s;
      const double w = ((ia == joint ? 1 - s : 0) + (ib == joint ? s : 0)) * scale;
      for (int i = 0; i < 3; ++i) sums[i] += w * p.n[i];
      sums[3] += w;
    }
    for (int i = 0; i < 4; ++i) {
      const double sum = block_sum<kSurfaceThreads>(sums[i]);
      if (threadIdx.x != 0) continue;
      if (i < 3) {
        grad_joints[task * 3 + i] = static_cast<T>(sum);
      } else {
        grad_radii[task] = static_cast<T>(sum);
      }
    }
  });
}

}  // namespace

template <class T>
CudaError capsule_depth_cuda(const CapsuleScene<T>& scene, T background, T* depth, int16_t* part,
                             CudaStream stream) {
  const int64_t tile_rows = (scene.height + kTile - 1) / kTile;
  const int64_t tile_columns = (scene.width + kTile - 1) / kTile;
  const int64_t tiles = scene.batch * tile_rows * tile_columns;
  if (tiles == 0) return 0;
  return DGPOSE_LAUNCH((capsule_forward<T>), blocks_for(tiles), kThreads, stream, scene, tile_rows,
                       tile_columns, background, depth, part);
}

template <class T>
CudaError capsule_depth_normals_cuda(const CapsuleScene<T>& scene, const T* depth,
                                     const int16_t* part, T* normals, CudaStream stream) {
  const int64_t pixels = scene.batch * scene.height * scene.width;
  if (pixels == 0) return 0;
  return DGPOSE_LAUNCH((capsule_normals<T>),
                       blocks_for((pixels + kSurfaceThreads - 1) / kSurfaceThreads),
                       kSurfaceThreads, stream, scene, depth, part, normals);
}

template <class T>
CudaError capsule_depth_backward_cuda(const CapsuleScene<T>& scene, const T* grad_depth,
                                      const T* depth, const int16_t* part, T* grad_joints,
                                      T* grad_radii, CudaStream stream) {
  const int64_t tasks = scene.batch * scene.joint_count;
  if (tasks == 0) return 0;
  return DGPOSE_LAUNCH((capsule_backward<T>), blocks_for(tasks), kSurfaceThreads, stream, scene,
                       grad_depth, depth, part, grad_joints, grad_radii);
}

#define DGPOSE_INSTANTIATE(T)                                                                    \
  template CudaError capsule_depth_cuda<T>(const CapsuleScene<T>&, T, T*, int16_t*, CudaStream); \
  template CudaError capsule_depth_normals_cuda<T>(const CapsuleScene<T>&, const T*,             \
                                                   const int16_t*, T*, CudaStream);              \
  template CudaError capsule_depth_backward_cuda<T>(const CapsuleScene<T>&, const T*, const T*,  \
                                                    const int16_t*, T*, T*, CudaStream);
DGPOSE_INSTANTIATE(float)
DGPOSE_INSTANTIATE(double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
