/* HandNet for programs without Python and torch: a depth frame to hand joints in millimetres.
 *
 *   dgpose_hand_net* net = NULL;
 *   if (dgpose_hand_net_load("hand.net.safetensors", &net) != DGPOSE_OK) {
 *     fprintf(stderr, "%s\n", dgpose_last_error());
 *     return 1;
 *   }
 *   dgpose_frame_request request = DGPOSE_FRAME_REQUEST_INIT;
 *   request.fx = 475; request.fy = 475; request.cx = 320; request.cy = 240;
 *   float* joints_mm = malloc(3 * sizeof(float) * dgpose_hand_net_joints(net));
 *   dgpose_frame_result result = DGPOSE_FRAME_RESULT_INIT;
 *   dgpose_hand_net_run_uint16(net, depth, 480, 640, 640, &request, joints_mm, NULL, &result);
 *   ...
 *   dgpose_hand_net_free(net);
 *
 * The file is that of `dgpose export hand --format safetensors`, or of HandNet.save in Python. The
 * numbers are those of HandNet in Python on the same processor, to the bit.
 *
 * Threads: a network is immutable; any number of threads may use one at once, each with its own
 * outputs. The first call of a thread allocates its workspace; after that only the lists of the
 * search for a hand grow, to the busiest frame so far. No call takes a lock. Freeing a network
 * while another thread uses it is an error of the program.
 *
 * Errors: what can fail returns a dgpose_status, and leaves a sentence for dgpose_last_error(). No
 * C++ exception leaves the library. Outputs hold nothing of use after an error.
 *
 * Compatibility: within one DGPOSE_ABI_VERSION functions are added, never changed, and structs grow
 * at their end, which is what their `struct_size` is for: start from the _INIT values.
 */
#ifndef DGPOSE_HAND_NET_C_H
#define DGPOSE_HAND_NET_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DGPOSE_API __attribute__((visibility("default")))
#else
#define DGPOSE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define DGPOSE_ABI_VERSION 1

typedef int32_t dgpose_status;
enum {
  DGPOSE_OK = 0,
  DGPOSE_INVALID_ARGUMENT = 1, /* a null pointer, a size or a number out of range */
  DGPOSE_CANNOT_READ = 2,      /* there is no such file, or it cannot be read */
  DGPOSE_BAD_FILE = 3,         /* foreign, damaged, cut short, or of another version */
  DGPOSE_OUT_OF_MEMORY = 4,
  DGPOSE_FAILED = 5 /* anything else, such as a DGPOSE_CPU_CAPABILITY that this processor lacks */
};

/* DGPOSE_ABI_VERSION of the library that is loaded. */
DGPOSE_API int32_t dgpose_abi_version(void);
/* Version of the package, "1.2.3". */
DGPOSE_API const char* dgpose_version(void);
/* What the calling thread's last failed call said, one sentence; "" before the first. Valid until
 * the next failure in this thread. */
DGPOSE_API const char* dgpose_last_error(void);

/* ---- networks ---- */

typedef struct dgpose_hand_net dgpose_hand_net;

/* Reads a network from a file, or from `size` bytes of memory that may go afterwards. The checksum
 * and every size in it are checked. *net is NULL after an error. */
DGPOSE_API dgpose_status dgpose_hand_net_load(const char* path, dgpose_hand_net** net);
DGPOSE_API dgpose_status dgpose_hand_net_load_memory(const void* data, size_t size,
                                                     dgpose_hand_net** net);
/* NULL is fine. */
DGPOSE_API void dgpose_hand_net_free(dgpose_hand_net* net);

/* What it is; 0 and "" for NULL. */
DGPOSE_API int64_t dgpose_hand_net_input_size(const dgpose_hand_net* net);  /* floats of a crop */
DGPOSE_API int64_t dgpose_hand_net_output_size(const dgpose_hand_net* net); /* floats a crop */
/* Shape of a crop: channels, height, width. */
DGPOSE_API void dgpose_hand_net_input_shape(const dgpose_hand_net* net, int64_t shape[3]);
/* J of a network from a crop [1, S, S] to joints [J, 3], which *_run_* takes; 0 for any other. */
DGPOSE_API int64_t dgpose_hand_net_joints(const dgpose_hand_net* net);
/* "float32", "bfloat16" or "int8". */
DGPOSE_API const char* dgpose_hand_net_precision(const dgpose_hand_net* net);

/* The network alone, in the calling thread: crops [batch, C, H, W] to out [batch, output size],
 * C-contiguous. For a hand regressor these are crop coordinates, see *_run_*. */
DGPOSE_API dgpose_status dgpose_hand_net_forward(const dgpose_hand_net* net, const float* crops,
                                                 int64_t batch, float* out);

/* ---- frames ---- */

typedef struct dgpose_frame_request {
  size_t struct_size;
  double fx, fy, cx, cy;  /* camera, pixels; fx, fy > 0 */
  double cube_mm;         /* edge of the cube around the hand, as the network was trained: 300 */
  double near_mm, far_mm; /* where a hand is searched, 0 <= near < far <= 65535: 10, 1500 */
  int32_t has_center;     /* 0: the hand is searched, as the nearest thing of its size */
  int32_t reserved;       /* 0 */
  double center[3];       /* where has_center is not 0: u, v (pixels), depth (mm, > 0) */
} dgpose_frame_request;

#define DGPOSE_FRAME_REQUEST_INIT \
  {sizeof(dgpose_frame_request), 0.0, 0.0, 0.0, 0.0, 300.0, 10.0, 1500.0, 0, 0, {0.0, 0.0, 0.0}}

typedef struct dgpose_frame_result {
  size_t struct_size;
  int32_t found;      /* 0: no hand was found, or nothing lies in the cube; the joints are NaN */
  int32_t has_center; /* 0: no centre was given or found */
  double center[3];   /* the one used: u, v (pixels), depth (mm) */
  float foreground;   /* share of the crop's pixels with a surface before the back of the cube */
  float clipped;      /* share of the crop's pixels with a surface before the front of the cube */
} dgpose_frame_result;

#define DGPOSE_FRAME_RESULT_INIT {sizeof(dgpose_frame_result), 0, 0, {0.0, 0.0, 0.0}, 0.0f, 0.0f}

/* One depth frame to joints: search, crop, network, millimetres. One call, one thread.
 *
 * depth: [height, width] in mm, pixel (x, y) at depth[y * row_stride + x]; 0, negative, NaN and Inf
 *   are missing.
 * joints_mm: [J, 3] x right, y UP, z forward, mm, camera origin. May be NULL.
 * joints_uvd: [J, 3] column, row (pixels), depth (mm). May be NULL.
 * Whether what lies in the cube is a hand is not asked. The shipped model knows right hands: for a
 * left one, mirror the frame (and cx, and x of the joints). */
DGPOSE_API dgpose_status dgpose_hand_net_run_uint16(const dgpose_hand_net* net,
                                                    const uint16_t* depth, int64_t height,
                                                    int64_t width, int64_t row_stride,
                                                    const dgpose_frame_request* request,
                                                    float* joints_mm, float* joints_uvd,
                                                    dgpose_frame_result* result);
DGPOSE_API dgpose_status dgpose_hand_net_run_float(const dgpose_hand_net* net, const float* depth,
                                                   int64_t height, int64_t width,
                                                   int64_t row_stride,
                                                   const dgpose_frame_request* request,
                                                   float* joints_mm, float* joints_uvd,
                                                   dgpose_frame_result* result);

#ifdef __cplusplus
}
#endif

#endif /* DGPOSE_HAND_NET_C_H */
