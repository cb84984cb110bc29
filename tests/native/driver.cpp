// Runs the native core without Python, for the sanitizers: the ops, several models, numbers of threads, engines at
// once, stopping, generated rows, noise, on the instruction sets that the arguments name. Exits with 1 and says why if
// results depend on the threads or are not finite. Arrays have no room to spare, so that overruns are seen.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "dispatch.h"
#include "engine.h"
#include "ops.h"
#include "sampler.h"

using namespace fastgan;

namespace {

constexpr int kRows = 23, kSteps = 4;

void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "driver: %s\n", what);
  std::exit(1);
}

float next_value(uint32_t& state) {  // in [-0.25, 0.25)
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) * 0x1p-25f - 0.25f;
}

void fill(const std::vector<Layer>& layers, uint32_t state) {
  for (const Layer& layer : layers) {
    std::vector<float> rows((size_t)layer.inputs * (size_t)layer.outputs);
    for (float& x : rows) x = next_value(state);
    pack(layer, rows.data(), layer.weight.w);
    for (int o = 0; o < layer.outputs; o++) layer.bias.w[o] = next_value(state);
    refresh_transposed(layer);
  }
}

void append(std::vector<float>& all, const std::vector<Layer>& layers) {
  for (const Layer& layer : layers)
    for (const float* from : {layer.weight.w, layer.weight.m, layer.weight.v, layer.weight.average}) {
      if (!from) continue;
      std::vector<float> rows((size_t)layer.inputs * (size_t)layer.outputs);
      unpack(layer, from, rows.data());
      all.insert(all.end(), rows.begin(), rows.end());
    }
}

struct Case {
  Spec spec;
  bool is_u8;
};

Spec spec_of(int latent, int features, int classes, std::vector<int> g, std::vector<int> d, int batch) {
  Spec s;
  s.latent = latent;
  s.features = features;
  s.classes = classes;
  s.g_hidden = std::move(g);
  s.d_hidden = std::move(d);
  s.batch = batch;
  s.slope = 0.2f;
  s.r1 = s.r2 = 3;
  s.penalty_every = 2;
  s.reuse_fakes = true;
  s.beta1 = 0.5;
  s.beta2 = 0.999;
  s.eps = 1e-8;
  s.average = true;
  return s;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back({spec_of(20, 35, 0, {33, 18}, {40, 17}, 37), true});
  all.push_back({spec_of(5, 16, 3, {16}, {15}, 1), false});
  all.push_back({spec_of(1, 1, 0, {1}, {1}, 16), true});
  Spec s = spec_of(20, 300, 0, {70}, {20, 300}, 150);  // sums in blocks
  s.loss = kBce;
  s.r1 = s.r2 = 0;
  s.reuse_fakes = s.average = false;
  s.head = kTanh;
  all.push_back({s, true});
  s = spec_of(7, 19, 2, {4, 50, 3}, {50, 2, 31}, 50);
  s.loss = kMinimax;
  s.r1 = 0;
  s.d_steps = 3;
  s.penalty_every = 1;
  s.target = 0.9f;
  s.head = kLinear;
  all.push_back({s, false});
  return all;
}

struct Data {
  std::vector<uint8_t> bytes;
  std::vector<float> floats;
  std::vector<int64_t> labels;
  DataRows rows;
  Data(const Spec& s, bool is_u8) : bytes(kRows * (size_t)s.features), floats(bytes.size()), labels(kRows) {
    uint32_t state = 1;
    for (size_t i = 0; i < bytes.size(); i++) {
      floats[i] = next_value(state);
      bytes[i] = (uint8_t)(state >> 24);
    }
    for (int i = 0; i < kRows; i++) labels[(size_t)i] = s.classes ? i % s.classes : 0;
    rows.rows = is_u8 ? (const void*)bytes.data() : floats.data();
    rows.is_u8 = is_u8;
    rows.labels = s.classes ? labels.data() : nullptr;
    rows.size = kRows;
    rows.scale = is_u8 ? 1 / 255.0f : 1.0f;
  }
};

// Metrics of all steps and the weights after them.
std::vector<float> train(const Case& c, int threads) {
  const Data data(c.spec, c.is_u8);
  Engine engine(c.spec, data.rows, threads);
  fill(engine.plan.g, 2);
  fill(engine.plan.d, 3);
  const std::vector<Schedule> schedule(kSteps, Schedule{1e-2, 1e-2, 0.5});
  std::vector<float> all(kSteps * kMetrics);
  const auto never = [] { return false; };
  check(engine.run(1, schedule.data(), all.data(), never) == 1, "a run of one step");
  check(engine.run(kSteps - 1, schedule.data(), all.data() + kMetrics, never) == kSteps - 1, "a run of three");
  for (size_t i = 0; i < all.size(); i++) check(i % kMetrics == 2 || std::isfinite(all[i]), "metrics: finite");
  append(all, engine.plan.g);
  append(all, engine.plan.d);
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(float));
}

void stop_from_outside() {
  const Case c = cases()[0];
  const Data data(c.spec, c.is_u8);
  Engine engine(c.spec, data.rows, 2);
  fill(engine.plan.g, 2);
  fill(engine.plan.d, 3);
  const long steps = 100'000;
  const std::vector<Schedule> schedule(steps, Schedule{1e-3, 1e-3, 0.5});
  std::vector<float> metrics(steps * kMetrics);
  std::atomic<bool> polled{false};
  std::thread stopper([&] {
    while (!polled) std::this_thread::yield();
    engine.stop();
  });
  const long done = engine.run(steps, schedule.data(), metrics.data(), [&] {
    polled = true;
    return false;
  });
  stopper.join();
  check(done > 0 && done < steps && engine.step == (uint64_t)done, "stop: ends between steps");
  const auto never = [] { return false; };
  engine.stop();
  check(engine.run(1, schedule.data(), metrics.data(), never) == 0, "stop: before a run, not lost");
  check(engine.run(1, schedule.data(), metrics.data(), never) == 1, "stop: spent");
}

template <class T>
std::vector<T> generate(const Case& c, int threads, int batch, int first, int count, bool by_index = false) {
  Spec spec = c.spec;
  spec.batch = batch;
  Sampler sampler(spec, threads);
  fill(sampler.layers, 2);
  std::vector<int64_t> labels((size_t)count), index((size_t)count);
  for (int i = 0; i < count; i++) {
    labels[(size_t)i] = spec.classes ? (first + i) % spec.classes : 0;
    index[(size_t)i] = first + i;
  }
  const RowNumbers numbers = by_index ? RowNumbers{0, index.data()} : RowNumbers{(uint64_t)first};
  std::vector<T> out((size_t)count * (size_t)spec.features);
  uint8_t* bytes = nullptr;
  float* floats = nullptr;
  if constexpr (sizeof(T) == 1)
    bytes = out.data();
  else
    floats = out.data();
  sampler.rows(9, 4, numbers, count, spec.classes ? labels.data() : nullptr, bytes, floats, 1 / 255.0f, 0);
  return out;
}

template <class T>
void check_rows(const Case& c) {
  const std::vector<T> whole = generate<T>(c, 1, 64, 0, 70);
  for (bool by_index : {false, true}) {
    const std::vector<T> part = generate<T>(c, 3, 17, 30, 33, by_index);
    check(!std::memcmp(part.data(), whole.data() + 30 * c.spec.features, part.size() * sizeof(T)),
          "generated rows: the same whatever is generated with them");
  }
}

void noise() {
  const Kernels& kernels = choose_kernels();
  for (int columns : {1, 5, 16, 33}) {
    std::vector<uint32_t> words((size_t)columns);
    kernels.words(1, 2, 0xffffffffull, columns, words.data());
  }
  for (uint64_t size : {1, 2, 17, 1000}) {
    std::vector<int64_t> index(50);
    kernels.epoch_index(7, 12345, 50, size, index.data());
    for (int64_t i : index) check(i >= 0 && (uint64_t)i < size, "epoch_index: within the data");
  }
}

std::vector<float> values(size_t count, uint32_t state) {
  std::vector<float> all(count);
  for (float& x : all) x = next_value(state);
  return all;
}

// Outputs and gradients of a layer of these sizes, and losses and gradients of as many logits as it has outputs.
std::vector<float> run_ops(const int (&sizes)[3], float slope, int threads) {
  const int batch = sizes[0], inputs = sizes[1], outputs = sizes[2];
  const size_t b = (size_t)batch, i = (size_t)inputs, o = (size_t)outputs;
  const std::vector<float> x = values(b * i, 4), w = values(o * i, 5), bias = values(o, 6), dy = values(b * o, 7);
  std::vector<float> y(b * o), dx(b * i), dw(o * i), db(o), losses(b * o), dlogits(b * o), mean(1);
  const RowMajor xs{x.data(), batch, inputs, inputs}, ws{w.data(), outputs, inputs, inputs};
  const RowMajor ys{y.data(), batch, outputs, outputs}, dys{dy.data(), batch, outputs, outputs};
  dense_forward(xs, ws, slope == 0 ? nullptr : bias.data(), slope, y.data(), threads);
  dense_backward(dys, xs, ws, ys, slope, dx.data(), dw.data(), db.data(), threads);
  BceArrays arrays{y.data(), dy.data(), dy.data(), dy.data(), 0, 1, losses.data(), nullptr};
  bce_with_logits(arrays, (long)(b * o), kNone, nullptr, threads);
  arrays.losses = nullptr;
  arrays.gradient = dlogits.data();
  bce_with_logits(arrays, (long)(b * o), kMean, mean.data(), threads);
  std::vector<float> all;
  for (const auto* part : {&y, &dx, &dw, &db, &losses, &dlogits, &mean})
    all.insert(all.end(), part->begin(), part->end());
  return all;
}

void ops() {
  constexpr int all[][3] = {{1, 1, 1}, {37, 19, 45}, {1100, 3, 17}};  // the last: two chunks of rows, two of logits
  for (const int(&sizes)[3] : all)
    for (float slope : {0.2f, 0.0f}) {
      const auto run = [&](int threads) { return run_ops(sizes, slope, threads); };
      const std::vector<float> one = run(1);
      for (float x : one) check(std::isfinite(x), "ops: finite");
      std::vector<float> left, right;  // two callers at once, more threads than one of them finds free
      std::thread other([&] { left = run(3); });
      right = run(3);
      other.join();
      check(same(one, left) && same(one, right), "ops: the same bits for any threads and callers");
    }
}

}  // namespace

int main(int count, char** isas) {
  for (int i = 1; i < count; i++) {
    setenv("FASTGAN_ISA", isas[i], 1);
    ops();
    for (const Case& c : cases()) {
      const std::vector<float> one = train(c, 1);
      check(same(one, train(c, 5)), "threads: the same bits for any number");
      Case columns = c;
      columns.spec.cut = kColumns;
      for (int threads : {1, 2, 3}) check(same(one, train(columns, threads)), "cut by columns: the same bits");
      std::vector<float> left, right;  // two engines at once
      std::thread other([&] { left = train(c, 2); });
      right = train(c, 2);
      other.join();
      check(same(one, left) && same(one, right), "two engines at once: the same bits");
      check_rows<float>(c);
      check_rows<uint8_t>(c);
    }
    noise();
    std::printf("%s\n", choose_kernels().name);
  }
  stop_from_outside();
  return 0;
}
