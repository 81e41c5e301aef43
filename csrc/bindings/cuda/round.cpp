#include "kangaroo/round.h"

#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../bindings.h"

namespace kangaroo::bindings {

namespace {

namespace py = pybind11;

// (number, steps that were run, tokens of every sequence, whether each is done, nodes of its tree
// and of its path)
using Counts = std::vector<int32_t>;
using Read = std::tuple<int64_t, int64_t, std::vector<std::vector<int64_t>>, std::vector<bool>,
                        Counts, Counts>;

// Owns the round, and knows the sizes of what it reads.
class Round {
 public:
  explicit Round(const kangaroo_round_config& config) : batch_(config.batch), nodes_(config.nodes) {
    raise(kangaroo_round_create(&config, &round_));
  }
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;
  ~Round() {
    const py::gil_scoped_release release;  // waits for rounds that run
    kangaroo_round_destroy(round_);
  }

  kangaroo_round* get() const { return round_; }

  std::optional<Read> read(const kangaroo_round_result& result) const {
    if (!result.ready) return std::nullopt;
    std::vector<std::vector<int64_t>> tokens;
    for (int64_t b = 0; b < batch_; ++b) {
      const int64_t* const row = result.tokens + b * nodes_;
      tokens.emplace_back(row, row + result.num_tokens[b]);
    }
    return Read{result.round,
                result.num_steps,
                std::move(tokens),
                std::vector<bool>(result.done, result.done + batch_),
                Counts(result.num_nodes, result.num_nodes + batch_),
                Counts(result.path_len, result.path_len + batch_)};
  }

 private:
  kangaroo_round* round_ = nullptr;
  int64_t batch_;
  int64_t nodes_;
};

std::optional<Read> wait(const Round& round, int64_t timeout_us) {
  kangaroo_round_result result = {};
  kangaroo_status status;
  {
    const py::gil_scoped_release release;
    status = kangaroo_round_wait(round.get(), timeout_us, &result);
  }
  raise(status);
  return round.read(result);
}

std::unique_ptr<Round> create(kangaroo_round_mode mode, const std::array<int64_t, 4>& sizes,
                              Address stopped, const std::array<Address, 6>& outputs,
                              const std::array<int64_t, 2>& strides,
                              const std::vector<int64_t>& eos_ids) {
  kangaroo_round_config config = {};
  config.mode = mode;
  config.num_steps = sizes[0];
  config.ahead = sizes[1];
  config.batch = sizes[2];
  config.nodes = sizes[3];
  config.stopped = at<int32_t>(stopped);
  config.tokens = at<int64_t>(outputs[0]);
  config.path = at<int64_t>(outputs[1]);
  config.path_len = at<int32_t>(outputs[2]);
  config.bonus = at<int64_t>(outputs[3]);
  config.num_nodes = at<int32_t>(outputs[4]);
  config.found = at<int32_t>(outputs[5]);
  config.token_stride = strides[0];
  config.path_stride = strides[1];
  config.eos_ids = eos_ids.data();
  config.num_eos = static_cast<int64_t>(eos_ids.size());
  return std::make_unique<Round>(config);
}

}  // namespace

void register_round_cuda(py::module_& module) {
  py::enum_<kangaroo_round_mode>(module, "RoundMode")
      .value("CONDITIONAL", KANGAROO_ROUND_CONDITIONAL)
      .value("NESTED", KANGAROO_ROUND_NESTED)
      .value("EARLY_RETURN", KANGAROO_ROUND_EARLY_RETURN);
  // sizes: num_steps, ahead, batch, nodes; outputs: tokens, path or 0, path_len, bonus, num_nodes
  // or 0, found or 0; strides: of tokens and of path.
  py::class_<Round>(module, "Round")
      .def(py::init(&create), py::arg("mode"), py::arg("sizes"), py::arg("stopped"),
           py::arg("outputs"), py::arg("strides"), py::arg("eos_ids"))
      .def_property_readonly(
          "done",
          [](const Round& r) { return reinterpret_cast<Address>(kangaroo_round_done(r.get())); })
      .def_property_readonly("instantiations",
                             [](const Round& r) { return kangaroo_round_instantiations(r.get()); })
      .def_property_readonly("unread",
                             [](const Round& r) { return kangaroo_round_unread(r.get()); })
      .def("capture",
           [](const Round& r, Address stream) {
             raise(kangaroo_round_capture(r.get(), at<void>(stream)));
           })
      .def("begin_front", [](const Round& r) { raise(kangaroo_round_begin_front(r.get())); })
      .def("end_front", [](const Round& r) { raise(kangaroo_round_end_front(r.get())); })
      .def("begin_step",
           [](const Round& r, int64_t step) { raise(kangaroo_round_begin_step(r.get(), step)); })
      .def("end_step", [](const Round& r) { raise(kangaroo_round_end_step(r.get())); })
      .def("begin_found", [](const Round& r) { raise(kangaroo_round_begin_found(r.get())); })
      .def("end_found", [](const Round& r) { raise(kangaroo_round_end_found(r.get())); })
      .def("begin_tail", [](const Round& r) { raise(kangaroo_round_begin_tail(r.get())); })
      .def("end_tail", [](const Round& r) { raise(kangaroo_round_end_tail(r.get())); })
      .def("finish", [](const Round& r) { raise(kangaroo_round_finish(r.get())); })
      .def("abort", [](const Round& r) { kangaroo_round_abort(r.get()); })
      .def("start",
           [](const Round& r, int64_t sequence, int32_t max_tokens, Address stream) {
             raise(kangaroo_round_start(r.get(), sequence, max_tokens, at<void>(stream)));
           })
      .def("launch",
           [](const Round& r, Address stream) {
             raise(kangaroo_round_launch(r.get(), at<void>(stream)));
           })
      .def("poll",
           [](const Round& r) {
             kangaroo_round_result result = {};
             raise(kangaroo_round_poll(r.get(), &result));
             return r.read(result);
           })
      .def("wait", &wait, py::arg("timeout_us") = -1);
}

}  // namespace kangaroo::bindings
