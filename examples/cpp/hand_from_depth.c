/* Hand joints from one depth frame, without Python.
 *
 *   hand_from_depth NETWORK FRAME.pgm fx,fy,cx,cy [u,v,mm]
 *
 * NETWORK is a file of `dgpose export hand --format safetensors`; FRAME.pgm a binary PGM of 16
 * bits, depth in mm, 0 where there is none (cv2.imwrite writes one). Prints one joint a line: x
 * right, y up, z forward, mm. Exit code: 0 a hand, 1 none, 2 an error. */
#include <dgpose/hand_net_c.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int fail(const char* subject, const char* message) {
  fprintf(stderr, "error: %s: %s\n", subject, message);
  return 2;
}

/* A number of the header; comments run from '#' to the end of the line. */
static int read_number(FILE* file, int* number) {
  int c = getc(file);
  while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
    if (c == '#') {
      while (c != '\n' && c != EOF) c = getc(file);
    } else {
      c = getc(file);
    }
  }
  ungetc(c, file);
  return fscanf(file, "%d", number) == 1 && *number > 0;
}

/* The pixels of a PGM of 16 bits (most significant byte first), or NULL. The caller frees them. */
static uint16_t* read_pgm(const char* path, int* width, int* height) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) return NULL;
  uint16_t* pixels = NULL;
  int largest = 0;
  if (getc(file) == 'P' && getc(file) == '5' && read_number(file, width) &&
      read_number(file, height) && read_number(file, &largest) && *width <= 16384 &&
      *height <= 16384 && 255 < largest && largest <= 65535) {
    getc(file); /* the one blank before the pixels */
    const size_t count = (size_t)*width * (size_t)*height;
    pixels = malloc(count * sizeof(uint16_t));
    if (pixels != NULL && fread(pixels, sizeof(uint16_t), count, file) != count) {
      free(pixels);
      pixels = NULL;
    }
    for (size_t i = 0; pixels != NULL && i < count; ++i) {
      const unsigned char* bytes = (const unsigned char*)&pixels[i];
      pixels[i] = (uint16_t)(bytes[0] << 8 | bytes[1]);
    }
  }
  fclose(file);
  return pixels;
}

int main(int argc, char** argv) {
  dgpose_frame_request request = DGPOSE_FRAME_REQUEST_INIT;
  if (argc < 4 || argc > 5) {
    fprintf(stderr, "usage: %s NETWORK FRAME.pgm fx,fy,cx,cy [u,v,mm]\n", argv[0]);
    return 2;
  }
  if (sscanf(argv[3], "%lf,%lf,%lf,%lf", &request.fx, &request.fy, &request.cx, &request.cy) != 4) {
    return fail(argv[3], "must be fx,fy,cx,cy in pixels");
  }
  if (argc == 5) {
    double* center = request.center;
    request.has_center = 1;
    if (sscanf(argv[4], "%lf,%lf,%lf", &center[0], &center[1], &center[2]) != 3) {
      return fail(argv[4], "must be u,v,mm");
    }
  }
  int width = 0, height = 0;
  uint16_t* depth = read_pgm(argv[2], &width, &height);
  if (depth == NULL) return fail(argv[2], "cannot be read as a binary PGM of 16 bits");

  dgpose_hand_net* net = NULL;
  if (dgpose_hand_net_load(argv[1], &net) != DGPOSE_OK) {
    free(depth);
    return fail("network", dgpose_last_error());
  }
  const int64_t joints = dgpose_hand_net_joints(net);
  float* joints_mm = malloc((size_t)dgpose_hand_net_output_size(net) * sizeof(float));
  dgpose_frame_result result = DGPOSE_FRAME_RESULT_INIT;
  int code = joints_mm == NULL ? fail("joints", "out of memory") : 0;

  /* The first call allocates; a stream goes on at the speed of the later ones. */
  const int calls = 101;
  clock_t start = 0;
  for (int call = 0; call < calls && code == 0; ++call) {
    if (call == 1) start = clock();
    if (dgpose_hand_net_run_uint16(net, depth, height, width, width, &request, joints_mm, NULL,
                                   &result) != DGPOSE_OK) {
      code = fail("frame", dgpose_last_error());
    }
  }
  if (code == 0 && !result.found) {
    fprintf(stderr, "no hand was found\n");
    code = 1;
  } else if (code == 0) {
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC / (calls - 1);
    for (int64_t j = 0; j < joints; ++j) {
      printf("%.9g %.9g %.9g\n", joints_mm[3 * j], joints_mm[3 * j + 1], joints_mm[3 * j + 2]);
    }
    fprintf(stderr, "centre %.1f, %.1f px, %.1f mm; %.0f us a frame; dgpose %s, %s\n",
            result.center[0], result.center[1], result.center[2], 1e6 * seconds, dgpose_version(),
            dgpose_hand_net_precision(net));
  }
  free(joints_mm);
  dgpose_hand_net_free(net);
  free(depth);
  return code;
}
