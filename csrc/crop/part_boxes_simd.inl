// The boxes of people begin .. end-1. A joint is one vector (x, y, -x, -y), so that least and
// greatest of both axes are one min; joints that are not there are Inf and never win. `table` and
// `there` have room for the joints of one person.
template <class T>
struct FourLanes {
  typedef T Type __attribute__((vector_size(4 * sizeof(T))));
};

template <class T>
void part_boxes_range(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible,
                      int64_t begin, int64_t end, T* table, int32_t* there, T* boxes,
                      bool* present) {
  using V = typename FourLanes<T>::Type;
  const T inf = static_cast<T>(__builtin_inf());
  const V none = {inf, inf, inf, inf};
  const T right = static_cast<T>(params.width - 1), bottom = static_cast<T>(params.height - 1);
  const V least = {T(0), T(0), -right, -bottom}, greatest = {right, bottom, T(0), T(0)};
  for (int64_t b = begin; b < end; ++b) {
    const T* point = keypoints + 2 * params.joints * b;
    for (int64_t j = 0; j < params.joints; ++j) {
      const T x = point[2 * j], y = point[2 * j + 1];
      // Finite: the difference from itself is 0, not NaN.
      const bool seen = (visible == nullptr || visible[params.joints * b + j]) & (x - x == T(0)) &
                        (y - y == T(0));
      const V lanes = {x, y, -x, -y};
      const V kept = seen ? lanes : none;
      __builtin_memcpy(table + 4 * j, &kept, sizeof(V));
      there[j] = seen;
    }
    const T margin = params.margins != nullptr ? params.margins[2 * b] : params.margin;
    const T lone = params.margins != nullptr ? params.margins[2 * b + 1] : params.lone_margin;
    int64_t member = 0;
    for (int64_t p = 0; p < params.parts; ++p) {
      V box = none;
      int32_t count = 0;
      for (; member < params.part_end[p]; ++member) {
        const int64_t j = params.members[member];
        V lanes;
        __builtin_memcpy(&lanes, table + 4 * j, sizeof(V));
        box = lanes < box ? lanes : box;
        count += there[j];
      }
      const T m = count == 1 ? lone : margin;
      box -= V{m, m, m, m};
      box = box < least ? least : box;
      box = box > greatest ? greatest : box;
      const int64_t at = params.parts * b + p;
      present[at] = count > 0;
      T* out = boxes + 4 * at;
      out[0] = count > 0 ? box[0] : T(0);
      out[1] = count > 0 ? box[1] : T(0);
      out[2] = count > 0 ? -box[2] : T(1);
      out[3] = count > 0 ? -box[3] : T(1);
    }
  }
}
