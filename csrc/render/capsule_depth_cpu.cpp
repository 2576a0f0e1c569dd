#include "render/capsule_depth.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "render/capsule_geometry.h"

#define DGPOSE_SIMD_BODY "render/capsule_depth_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

constexpr int64_t kPadding = 16;  // rays are read by the whole vector

void draw_rows(const CapsuleScene<float>& scene, int64_t frame, int64_t row_begin, int64_t row_end,
               const float* ray_x, float* depth, int16_t* part) {
  DGPOSE_DISPATCH(capsule_rows_f32(scene, frame, row_begin, row_end, ray_x, depth, part));
}

void draw_rows(const CapsuleScene<double>& scene, int64_t frame, int64_t row_begin, int64_t row_end,
               const double* ray_x, double* depth, int16_t* part) {
  scalar::capsule_rows<scalar::F64>(scene, frame, row_begin, row_end, ray_x, depth, part);
}

// A part map may have been changed by its owner since it was rendered: it must not index memory.
template <class T>
bool is_edge(const CapsuleScene<T>& scene, int16_t part) {
  return part >= 0 && part < scene.edge_count;
}

template <class T>
SurfacePoint<T> surface_of_part(const CapsuleScene<T>& scene, int64_t frame, int64_t x, int64_t y,
                                T depth, int16_t part) {
  return surface_point(scene, frame, scene.edges[2 * part], scene.edges[2 * part + 1], x, y, depth);
}

}  // namespace

template <class T>
void capsule_depth_cpu(const CapsuleScene<T>& scene, T background, T* depth, int16_t* part) {
  const int64_t pixels = scene.height * scene.width;
  if (scene.batch == 0 || pixels == 0) return;
  const int64_t padded = scene.width + kPadding;
  const int64_t camera_count = scene.camera_per_frame ? scene.batch : 1;
  std::vector<T> rays(camera_count * padded);
  for (int64_t c = 0; c < camera_count; ++c) {
    const T* camera = scene.cameras + 4 * c;
    for (int64_t x = 0; x < scene.width; ++x) {
      rays[c * padded + x] = (static_cast<T>(x) - camera[2]) / camera[0];
    }
  }
  // A frame is one task; few frames are cut into bands of rows.
  const int64_t threads = num_threads();
  const int64_t bands = scene.batch >= threads
                            ? 1
                            : std::min(scene.height, (threads + scene.batch - 1) / scene.batch);
  parallel_for(0, scene.batch * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t frame = task / bands, band = task % bands;
      const int64_t row_begin = scene.height * band / bands;
      const int64_t row_end = scene.height * (band + 1) / bands;
      T* frame_depth = depth + frame * pixels;
      int16_t* frame_part = part + frame * pixels;
      const int64_t first = row_begin * scene.width, last = row_end * scene.width;
      std::fill(frame_depth + first, frame_depth + last, std::numeric_limits<T>::infinity());
      std::fill(frame_part + first, frame_part + last, static_cast<int16_t>(-1));
      draw_rows(scene, frame, row_begin, row_end,
                rays.data() + (scene.camera_per_frame ? frame * padded : 0), frame_depth,
                frame_part);
      for (int64_t i = first; i < last; ++i) {
        if (frame_part[i] < 0) frame_depth[i] = background;
      }
    }
  });
}

template <class T>
void capsule_depth_normals_cpu(const CapsuleScene<T>& scene, const T* depth, const int16_t* part,
                               T* normals) {
  const int64_t pixels = scene.height * scene.width;
  parallel_for(0, scene.batch * scene.height, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t frame = row / scene.height, y = row % scene.height;
      for (int64_t x = 0; x < scene.width; ++x) {
        const int64_t at = row * scene.width + x;
        T* out = normals + frame * 3 * pixels + y * scene.width + x;
        SurfacePoint<T> point{};
        if (is_edge(scene, part[at]))
          point = surface_of_part(scene, frame, x, y, depth[at], part[at]);
        for (int i = 0; i < 3; ++i) out[i * pixels] = point.n[i];
      }
    }
  });
}

template <class T>
void capsule_depth_backward_cpu(const CapsuleScene<T>& scene, const T* grad_depth, const T* depth,
                                const int16_t* part, T* grad_joints, T* grad_radii) {
  const int64_t joint_count = scene.joint_count;
  std::vector<double> sums(scene.batch * joint_count * 4);  // gradient of x, y, z, radius
  parallel_for(0, scene.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t frame = begin; frame < end; ++frame) {
      double* sum = sums.data() + frame * joint_count * 4;
      for (int64_t y = 0; y < scene.height; ++y) {
        for (int64_t x = 0; x < scene.width; ++x) {
          const int64_t at = (frame * scene.height + y) * scene.width + x;
          if (!is_edge(scene, part[at]) || grad_depth[at] == 0) continue;
          const SurfacePoint<T> p = surface_of_part(scene, frame, x, y, depth[at], part[at]);
          const double facing = p.n[0] * p.ray[0] + p.n[1] * p.ray[1] + p.n[2] * p.ray[2];
          if (!(facing < -kGrazing)) continue;
          const double scale = static_cast<double>(grad_depth[at]) / facing;
          const double weights[2] = {1 - static_cast<double>(p.s), static_cast<double>(p.s)};
          for (int end_index = 0; end_index < 2; ++end_index) {
            double* out = sum + scene.edges[2 * part[at] + end_index] * 4;
            const double w = weights[end_index] * scale;
            for (int i = 0; i < 3; ++i) out[i] += w * p.n[i];
            out[3] += w;
          }
        }
      }
      for (int64_t j = 0; j < joint_count; ++j) {
        for (int i = 0; i < 3; ++i) {
          grad_joints[(frame * joint_count + j) * 3 + i] = static_cast<T>(sum[4 * j + i]);
        }
        grad_radii[frame * joint_count + j] = static_cast<T>(sum[4 * j + 3]);
      }
    }
  });
}

#define DGPOSE_INSTANTIATE(T)                                                                  \
  template void capsule_depth_cpu<T>(const CapsuleScene<T>&, T, T*, int16_t*);                 \
  template void capsule_depth_normals_cpu<T>(const CapsuleScene<T>&, const T*, const int16_t*, \
                                             T*);                                              \
  template void capsule_depth_backward_cpu<T>(const CapsuleScene<T>&, const T*, const T*,      \
                                              const int16_t*, T*, T*);
DGPOSE_INSTANTIATE(float)
DGPOSE_INSTANTIATE(double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
