// See disk_heatmap.h for the maths.
//
// A task is a band of rows of one map, dense in memory. Where the disk begins and ends in each row
// is computed once, into shared memory; what is left is zeros and ones, 16 bytes a thread. Limit:
// the maps are written once.
#include "heatmap/binary_maps_cuda.h"
#include "heatmap/disk_heatmap.h"

namespace dgpose {
namespace {

constexpr int kThreads = 256;
constexpr int kBandRows = 256;
constexpr int64_t kBandBytes = 32768;

// N elements are stored at once: rows_are_packed, or N = 1.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    draw_disks(DiskHeatmapParams p, int64_t bands, int band_rows, const double* keypoints,
               const bool* visible, T one, T* out) {
  __shared__ int64_t begin[kBandRows], end[kBandRows];  // columns of the disk
  for_each_task(p.maps * bands, [&](int64_t task) {
    const int64_t map = task / bands, y0 = task % bands * band_rows;
    const int rows = static_cast<int>(min(p.height - y0, static_cast<int64_t>(band_rows)));
    const double u = trunc(keypoints[2 * map]), v = trunc(keypoints[2 * map + 1]);
    const int64_t reach = static_cast<int64_t>(p.radius);
    // Written so that NaN is outside; what is inside fits an integer.
    const bool drawn = (visible == nullptr || visible[map]) && u >= static_cast<double>(-reach) &&
                       u < static_cast<double>(p.width + reach) &&
                       v >= static_cast<double>(-reach) &&
                       v < static_cast<double>(p.height + reach);
    const int64_t x = drawn ? static_cast<int64_t>(u) : 0, y = drawn ? static_cast<int64_t>(v) : 0;
    for (int row = threadIdx.x; row < rows; row += kThreads) {
      const int64_t away = y0 + row < y ? y - y0 - row : y0 + row - y;
      const bool touched = drawn && away <= reach;
      const int64_t half = touched ? disk_half_width(p.radius, static_cast<int>(away)) : 0;
      begin[row] = touched ? x - half : p.width;
      end[row] = touched ? x + half + 1 : p.width;
    }
    __syncthreads();
    T* band = out + (map * p.height + y0) * p.width;
    // From a pack to the one kThreads further on, without division; in a row of more packs than
    // that, `across` stands for all of them.
    const int64_t packs = p.width / N;
    const int across = static_cast<int>(min(packs, int64_t{kThreads} + 1));
    const int row_step = kThreads / across, column_step = kThreads % across;
    int64_t column = threadIdx.x % across;
    for (int row = threadIdx.x / across; row < rows; row += row_step) {
      const int64_t first = column * N;
      const int64_t from = min(max(begin[row] - first, int64_t{0}), int64_t{N});
      const int64_t to = min(max(end[row] - first, int64_t{0}), int64_t{N});
      store_bits<N>((1u << to) - (1u << from), one, band + row * p.width + first);
      column += column_step;
      if (column >= packs) {
        column -= packs;
        ++row;
      }
    }
  });
}

}  // namespace

template <class T>
CudaError disk_heatmap_cuda(const DiskHeatmapParams& params, const double* keypoints,
                            const bool* visible, T one, T* out, CudaStream stream) {
  if (params.maps * params.height * params.width == 0) return 0;
  const int64_t rows = kBandBytes / (params.width * static_cast<int64_t>(sizeof(T)));
  const int band_rows = static_cast<int>(rows < 1 ? 1 : rows > kBandRows ? kBandRows : rows);
  const int64_t bands = (params.height + band_rows - 1) / band_rows;
  const int64_t blocks = blocks_for(params.maps * bands);
  if (rows_are_packed(out, params.width)) {
    return DGPOSE_LAUNCH((draw_disks<kPack<T>, T>), blocks, kThreads, stream, params, bands,
                         band_rows, keypoints, visible, one, out);
  }
  return DGPOSE_LAUNCH((draw_disks<1, T>), blocks, kThreads, stream, params, bands, band_rows,
                       keypoints, visible, one, out);
}

#define DGPOSE_INSTANTIATE(T)                                                                      \
  template CudaError disk_heatmap_cuda<T>(const DiskHeatmapParams&, const double*, const bool*, T, \
                                          T*, CudaStream);
DGPOSE_INSTANTIATE(uint8_t)
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(uint32_t)
DGPOSE_INSTANTIATE(uint64_t)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
