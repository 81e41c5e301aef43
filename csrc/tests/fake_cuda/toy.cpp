#include "toy.h"

#include <algorithm>

#include "../../cuda/round_kernels.h"

namespace toy {

void begin_kernel(Work work) {
  Memory& m = *work.memory;
  for (int64_t b = 0; b < m.batch; ++b) {
    if (m.stopped[b] != 0) continue;
    m.tokens[b * m.nodes] = m.root[b];
  }
}

void front_kernel(Work work) {
  begin_kernel(work);
  Memory& m = *work.memory;
  for (int64_t b = 0; b < m.batch; ++b) {
    m.found[b] = m.stopped[b] == 0 && known(m.root[b]);
    if (m.found[b] == 0) continue;
    int64_t* const chain = &m.tokens[b * m.nodes];
    while (m.num_nodes[b] < m.nodes) {
      chain[m.num_nodes[b]] = target(chain[m.num_nodes[b] - 1]);
      ++m.num_nodes[b];
    }
    m.stopped[b] = 1;
  }
}

void found_kernel(Work work) { ++work.memory->num_found_run; }

void step_kernel(Work work) {
  Memory& m = *work.memory;
  bool any = false;
  for (int64_t b = 0; b < m.batch; ++b) {
    if (m.stopped[b] != 0) continue;
    any = true;
    int64_t* const chain = &m.tokens[b * m.nodes];
    const int64_t token = draft(chain[m.num_nodes[b] - 1]);
    chain[m.num_nodes[b]++] = token;
    m.stopped[b] = !sure(token) || m.num_nodes[b] == m.nodes;
  }
  m.num_steps_run += any;
}

void tail_kernel(Work work) {
  Memory& m = *work.memory;
  ++m.num_tails_run;
  for (int64_t b = 0; b < m.batch; ++b) {
    if (m.done[b] != 0) continue;
    int64_t* const chain = &m.tokens[b * m.nodes];
    if (m.nodes == 1) {  // nothing was drafted
      chain[0] = m.root[b];
    }
    int32_t len = 1;
    while (len < m.num_nodes[b] && chain[len] == target(chain[len - 1])) ++len;
    m.path_len[b] = len;
    m.bonus[b] = m.root[b] = target(chain[len - 1]);
  }
}

Decoder::Decoder(const Shape& given) : shape(given) {
  memory.batch = shape.batch;
  memory.nodes = shape.num_steps + 1;
  for (int64_t b = 0; b < shape.batch; ++b) memory.root[b] = 10 + 7 * b;
  written.resize(static_cast<std::size_t>(shape.batch));
  for (auto* counts : {&done, &num_drafted, &num_accepted}) {
    counts->resize(static_cast<std::size_t>(shape.batch));
  }
  fake::add_kernel("start", &kangaroo::_round_start_kernel);
  fake::add_kernel("open", &kangaroo::_round_open_kernel);
  fake::add_kernel("gate", &kangaroo::_round_gate_kernel);
  fake::add_kernel("publish", &kangaroo::_round_publish_kernel);
  fake::add_kernel("begin", &begin_kernel);
  fake::add_kernel("front", &front_kernel);
  fake::add_kernel("step", &step_kernel);
  fake::add_kernel("found", &found_kernel);
  fake::add_kernel("tail", &tail_kernel);
}

Decoder::~Decoder() {
  kangaroo_round_destroy(round);
  fake::free_stream(stream);
}

kangaroo_round_config Decoder::config() const {
  Memory& m = const_cast<Memory&>(memory);
  kangaroo_round_config c = {};
  c.mode = shape.mode;
  c.num_steps = shape.num_steps;
  c.ahead = shape.ahead;
  c.batch = shape.batch;
  c.nodes = c.token_stride = m.nodes;
  c.stopped = m.stopped.data();
  c.tokens = m.tokens.data();
  c.path_len = m.path_len.data();
  c.bonus = m.bonus.data();
  c.num_nodes = m.num_nodes.data();
  if (shape.fronted) c.found = m.found.data();
  c.eos_ids = shape.eos_ids.data();
  c.num_eos = static_cast<int64_t>(shape.eos_ids.size());
  return c;
}

kangaroo_status Decoder::create(const kangaroo_round_config& config) {
  const kangaroo_status status = kangaroo_round_create(&config, &round);
  memory.done = kangaroo_round_done(round);
  return status;
}

namespace {

cudaError_t enqueue(void (*kernel)(Work), Memory* memory, cudaStream_t stream) {
  Work work = {memory};
  void* params[] = {&work};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(1), dim3(1), params, 0,
                          stream);
}

}  // namespace

kangaroo_status Decoder::capture() {
  if (auto bad = kangaroo_round_capture(round, stream)) return bad;
  if (shape.fronted) {
    if (auto bad = kangaroo_round_begin_front(round)) return bad;
    enqueue(&front_kernel, &memory, stream);
    if (auto bad = kangaroo_round_end_front(round)) return bad;
  }
  for (int64_t s = 0; s < shape.num_steps; ++s) {
    if (auto bad = kangaroo_round_begin_step(round, s)) return bad;
    if (s == 0) enqueue(&begin_kernel, &memory, stream);
    enqueue(&step_kernel, &memory, stream);
    if (auto bad = kangaroo_round_end_step(round)) return bad;
  }
  if (shape.fronted && shape.entered) {
    if (auto bad = kangaroo_round_begin_found(round)) return bad;
    enqueue(&found_kernel, &memory, stream);
    if (auto bad = kangaroo_round_end_found(round)) return bad;
  }
  if (auto bad = kangaroo_round_begin_tail(round)) return bad;
  enqueue(&tail_kernel, &memory, stream);
  if (auto bad = kangaroo_round_end_tail(round)) return bad;
  return kangaroo_round_finish(round);
}

kangaroo_status Decoder::start(int64_t sequence, int32_t max_tokens) {
  return kangaroo_round_start(round, sequence, max_tokens, stream);
}

void Decoder::keep(const kangaroo_round_result& result) {
  num_steps = result.num_steps;
  for (std::size_t b = 0; b < written.size(); ++b) {
    const int64_t* const tokens = result.tokens + static_cast<int64_t>(b) * memory.nodes;
    written[b].insert(written[b].end(), tokens, tokens + result.num_tokens[b]);
    done[b] = result.done[b];
    if (result.num_tokens[b] == 0) continue;
    num_drafted[b] += result.num_nodes[b] - 1;
    num_accepted[b] += result.path_len[b] - 1;
  }
  ++num_rounds;
}

kangaroo_status Decoder::step() {
  if (auto bad = launch()) return bad;
  kangaroo_round_result result = {};
  if (auto bad = kangaroo_round_wait(round, -1, &result)) return bad;
  keep(result);
  return KANGAROO_OK;
}

kangaroo_status Decoder::run() {
  while (std::count(done.begin(), done.end(), 0) > 0) {
    while (kangaroo_round_unread(round) < shape.ahead) {
      if (auto bad = launch()) return bad;
    }
    kangaroo_round_result result = {};
    if (auto bad = kangaroo_round_wait(round, -1, &result)) return bad;
    keep(result);
  }
  return KANGAROO_OK;
}

std::vector<int64_t> expected(int64_t root, const std::vector<int64_t>& eos_ids,
                              int32_t max_tokens) {
  std::vector<int64_t> tokens;
  for (int64_t token = target(root); static_cast<int32_t>(tokens.size()) < max_tokens;
       token = target(token)) {
    tokens.push_back(token);
    if (std::count(eos_ids.begin(), eos_ids.end(), token) > 0) break;
  }
  return tokens;
}

int steps_needed(const std::vector<int64_t>& roots, const Shape& shape) {
  int needed = 0;
  for (int64_t token : roots) {
    if (shape.fronted && known(token)) continue;
    int steps = 0;
    while (steps < shape.num_steps) {
      token = draft(token);
      ++steps;
      if (!sure(token)) break;
    }
    needed = std::max(needed, steps);
  }
  return needed;
}

}  // namespace toy
