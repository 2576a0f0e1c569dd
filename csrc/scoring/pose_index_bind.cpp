// dgpose_ext._C.PoseIndexCore: what dgpose_ext.pose_index is made of. Arrays are C-contiguous; the
// Python side converts, checks shapes and words the errors of users. Every call releases the GIL.
#include "scoring/pose_index.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>

#include "torch/pybind.h"

namespace {

using namespace dgpose;
template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
const T* data_or_null(const std::optional<Array<T>>& array) {
  return array ? array->data() : nullptr;
}

// The arrays of a file, which the index keeps alive.
struct MappedIndex {
  Array<float> rows;
  std::optional<Array<float>> poses;
  Array<int64_t> ids;
  std::optional<Array<float>> mean;
  std::optional<Array<uint8_t>> panels;
  std::optional<Array<float>> bounds;  // [4, 16 ceil(N / 16)]
};

class PoseIndexCore {
 public:
  PoseIndexCore(int storage, int64_t dim, int64_t joints)
      : index_(static_cast<Storage>(storage), dim, joints) {}
  PoseIndexCore(int storage, int64_t dim, int64_t joints, MappedIndex arrays)
      : kept_(std::move(arrays)),
        index_(static_cast<Storage>(storage), dim, joints, parts_of(kept_)) {}

  void add(const Array<float>& embeddings, const std::optional<Array<float>>& poses,
           const std::optional<Array<int64_t>>& ids) {
    const int64_t count = embeddings.shape(0);
    const float *rows = embeddings.data(), *pose = data_or_null(poses);
    const int64_t* id = data_or_null(ids);
    py::gil_scoped_release release;
    index_.add(rows, count, pose, id);
  }

  void remove(const Array<int64_t>& ids) {
    const int64_t* id = ids.data();
    const int64_t count = ids.size();
    py::gil_scoped_release release;
    index_.remove(id, count);
  }

  py::tuple search(const Array<float>& queries, int64_t k,
                   const std::optional<Array<uint64_t>>& allowed, int64_t allowed_count,
                   const std::optional<Array<int64_t>>& only_ids,
                   const std::optional<Array<float>>& targets, double margin_weight,
                   bool mean_poses) const {
    const int64_t batch = queries.shape(0);
    Array<float> scores({batch, k});
    Array<int64_t> ids({batch, k});
    Array<float> means({mean_poses ? batch : 0, index_.joints(), int64_t{3}});
    PoseIndex::Request request{queries.data(), batch, k};
    request.allowed = data_or_null(allowed);
    request.allowed_count = allowed_count;
    request.only_ids = data_or_null(only_ids);
    request.only_count = only_ids ? only_ids->size() : 0;
    request.targets = data_or_null(targets);
    request.margin_weight = margin_weight;
    if (mean_poses) request.mean_poses = means.mutable_data();
    float* score = scores.mutable_data();
    int64_t* id = ids.mutable_data();
    {
      py::gil_scoped_release release;
      index_.search(request, score, id);
    }
    return py::make_tuple(scores, ids, means);
  }

  void reserve(int64_t count) {
    py::gil_scoped_release release;
    index_.reserve(count);
  }

  Array<float> poses(const Array<int64_t>& ids) const {
    Array<float> out({static_cast<int64_t>(ids.size()), index_.joints(), int64_t{3}});
    const int64_t* id = ids.data();
    float* pose = out.mutable_data();
    const int64_t count = ids.size();
    py::gil_scoped_release release;
    index_.poses(id, count, pose);
    return out;
  }

  // use(arrays): a dict of arrays that are views of the index, valid during the call only.
  void with_arrays(const py::function& use) {
    py::gil_scoped_release release;  // whoever waits for the index must not hold the GIL
    index_.with_parts([&](const IndexParts& p) {
      const py::gil_scoped_acquire acquire;
      const int64_t dim = index_.dim(), joints = index_.joints();
      const int64_t padded = (p.count + kPanelRows - 1) / kPanelRows * kPanelRows;
      const auto view = [](const auto* data, std::vector<py::ssize_t> shape) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
        static const char owner = 0;  // a base, so that the array does not copy
        return py::array_t<T>(std::move(shape), data, py::capsule(&owner, [](void*) {}));
      };
      py::dict arrays;
      arrays["rows"] = view(p.rows, {p.count, dim});
      arrays["ids"] = view(p.ids, {p.count});
      if (joints > 0) arrays["poses"] = view(p.poses, {p.count, joints, 3});
      if (index_.storage() != Storage::kFloat32 && p.count > 0) {
        arrays["mean"] = view(p.mean, {dim});
        arrays["panels"] =
            view(p.panels, {padded / kPanelRows * panel_bytes(index_.storage(), dim)});
        constexpr const char* kNames[4] = {"scale", "offset", "error", "norm"};
        for (int i = 0; i < 4; ++i) arrays[kNames[i]] = view(p.bounds[i], {padded});
      }
      use(arrays);
    });
  }

  const PoseIndex& index() const { return index_; }

 private:
  static IndexParts parts_of(const MappedIndex& m) {
    IndexParts parts{};
    parts.count = m.ids.size();
    parts.rows = m.rows.data();
    parts.ids = m.ids.data();
    parts.poses = data_or_null(m.poses);
    parts.mean = data_or_null(m.mean);
    parts.panels = data_or_null(m.panels);
    for (int i = 0; m.bounds && i < 4; ++i) {
      parts.bounds[i] = m.bounds->data() + i * m.bounds->shape(1);
    }
    return parts;
  }

  MappedIndex kept_;
  PoseIndex index_;
};

}  // namespace

DGPOSE_PYBIND(pose_index) {
  py::class_<PoseIndexCore>(m, "PoseIndexCore")
      .def(py::init<int, int64_t, int64_t>(), py::arg("storage"), py::arg("dim"), py::arg("joints"))
      .def_static(
          "from_arrays",
          [](int storage, int64_t dim, int64_t joints, Array<float> rows,
             std::optional<Array<float>> poses, Array<int64_t> ids,
             std::optional<Array<float>> mean, std::optional<Array<uint8_t>> panels,
             std::optional<Array<float>> bounds) {
            return std::make_unique<PoseIndexCore>(
                storage, dim, joints,
                MappedIndex{std::move(rows), std::move(poses), std::move(ids), std::move(mean),
                            std::move(panels), std::move(bounds)});
          },
          py::arg("storage"), py::arg("dim"), py::arg("joints"), py::arg("rows"), py::arg("poses"),
          py::arg("ids"), py::arg("mean"), py::arg("panels"), py::arg("bounds"))
      .def("add", &PoseIndexCore::add, py::arg("embeddings"), py::arg("poses"), py::arg("ids"))
      .def("remove", &PoseIndexCore::remove, py::arg("ids"))
      .def("search", &PoseIndexCore::search, py::arg("queries"), py::arg("k"), py::arg("allowed"),
           py::arg("allowed_count"), py::arg("only_ids"), py::arg("targets"),
           py::arg("margin_weight"), py::arg("mean_poses"))
      .def("poses", &PoseIndexCore::poses, py::arg("ids"))
      .def("reserve", &PoseIndexCore::reserve, py::arg("count"))
      .def("with_arrays", &PoseIndexCore::with_arrays, py::arg("use"))
      .def(
          "count", [](const PoseIndexCore& self) { return self.index().count(); },
          py::call_guard<py::gil_scoped_release>())
      .def(
          "memory_bytes", [](const PoseIndexCore& self) { return self.index().memory_bytes(); },
          py::call_guard<py::gil_scoped_release>())
      .def("stats", [](const PoseIndexCore& self) {
        const IndexStats s = self.index().stats();
        return std::map<std::string, double>{{"searches", s.searches},
                                             {"queries", s.queries},
                                             {"survivors", s.survivors},
                                             {"roots", s.roots},
                                             {"seconds", s.seconds}};
      });
}
