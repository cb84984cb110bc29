// Engine and sampler of the native module: arguments checked, arrays kept alive, one caller at a time.
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "bind.h"
#include "engine.h"
#include "sampler.h"

namespace nb = nanobind;
using namespace nb::literals;
using fastgan::Engine;
using fastgan::Layer;
using fastgan::Spec;

namespace {

using AnyRows = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

bool positive(const std::vector<int>& widths) {
  return !widths.empty() && std::all_of(widths.begin(), widths.end(), [](int width) { return width > 0; });
}

int team(int threads) {
  want(threads > 0, "threads: at least one");
  return threads;
}

Spec spec_of(const nb::dict& options) {
  auto get = [&](const char* name) { return options[name]; };
  Spec s;
  s.latent = nb::cast<int>(get("latent"));
  s.features = nb::cast<int>(get("features"));
  s.classes = nb::cast<int>(get("classes"));
  s.g_hidden = nb::cast<std::vector<int>>(get("g_hidden"));
  s.slope = nb::cast<float>(get("slope"));
  s.head = static_cast<fastgan::Activation>(nb::cast<int>(get("head")));
  s.batch = nb::cast<int>(get("batch"));
  // Sizes are counts, and some of them divisors.
  want(s.latent > 0 && s.features > 0 && s.classes >= 0, "latent, features, classes: at least 1, 1 and 0");
  want(positive(s.g_hidden), "g_hidden: at least one width, all of them at least 1");
  want(s.batch > 0, "batch: at least one row");
  if (!options.contains("loss")) return s;  // a sampler needs no more
  s.d_hidden = nb::cast<std::vector<int>>(get("d_hidden"));
  s.loss = static_cast<fastgan::Loss>(nb::cast<int>(get("loss")));
  s.target = nb::cast<float>(get("target"));
  s.r1 = nb::cast<float>(get("r1"));
  s.r2 = nb::cast<float>(get("r2"));
  s.penalty_every = nb::cast<int>(get("penalty_every"));
  s.d_steps = nb::cast<int>(get("d_steps"));
  s.reuse_fakes = nb::cast<bool>(get("reuse_fakes"));
  s.beta1 = nb::cast<double>(get("beta1"));
  s.beta2 = nb::cast<double>(get("beta2"));
  s.eps = nb::cast<double>(get("eps"));
  s.average = nb::cast<bool>(get("average"));
  if (options.contains("cut")) s.cut = static_cast<fastgan::Cut>(nb::cast<int>(get("cut")));
  want(positive(s.d_hidden), "d_hidden: at least one width, all of them at least 1");
  want(s.penalty_every > 0 && s.d_steps > 0, "penalty_every, d_steps: at least 1");
  return s;
}

enum Kind { kParameter, kFirstMoment, kSecondMoment, kAverage };

float* of_kind(const fastgan::Weights& w, int kind) {
  float* all[] = {w.w, w.m, w.v, w.average};
  want(kind >= 0 && kind < 4 && all[kind], "kind: there is no such tensor");
  return all[kind];
}

const Layer& layer_at(const std::vector<Layer>& layers, int i) {
  want(i >= 0 && i < (int)layers.size(), "layer: out of range");
  return layers[(size_t)i];
}

void check_sizes(const Layer& layer, size_t weight, size_t bias) {
  want(weight == (size_t)layer.inputs * (size_t)layer.outputs, "weight: wrong number of elements");
  want(bias == (size_t)layer.outputs, "bias: wrong number of elements");
}

void set_layer(const Layer& layer, int kind, const In<float>& weight, const In<float>& bias) {
  check_sizes(layer, weight.size(), bias.size());
  fastgan::pack(layer, weight.data(), of_kind(layer.weight, kind));
  std::copy_n(bias.data(), layer.outputs, of_kind(layer.bias, kind));
  if (kind == kParameter) fastgan::refresh_transposed(layer);
}

void get_layer(const Layer& layer, int kind, const Out<float>& weight, const Out<float>& bias) {
  check_sizes(layer, weight.size(), bias.size());
  fastgan::unpack(layer, of_kind(layer.weight, kind), weight.data());
  std::copy_n(of_kind(layer.bias, kind), layer.outputs, bias.data());
}

// For its lifetime, the only caller inside an object whose `door` this is: the process that is inside, or 0. After a
// fork during a call, the child's copy is of the middle of it, and its door has the parent's number.
class Inside {
 public:
  // `torn` says why such a copy cannot be used; null where it can.
  Inside(std::atomic<pid_t>& door, const char* busy, const char* torn) : door_(door) {
    const pid_t me = getpid();
    while (!door.compare_exchange_strong(left_, me)) {
      if (left_ == me) throw std::runtime_error(busy);
      if (torn) throw std::runtime_error(torn);
    }
  }
  ~Inside() {
    pid_t me = getpid();
    door_.compare_exchange_strong(me, left_);  // a child that was forked meanwhile leaves it as it is
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  // What was torn is whole again.
  void mended() { left_ = 0; }

 private:
  std::atomic<pid_t>& door_;
  pid_t left_ = 0;  // what the door will have again
};

constexpr const char* kRunning = "engine: it is running in another thread";
constexpr const char* kTorn =
    "engine: this process was forked while it ran, and this copy is of half a step; load a state into it";

constexpr const char* kComputing = "sampler: it computes in another thread";

// Keeps the arrays alive that the engine reads, and one caller at a time inside it.
class BoundEngine {
 public:
  BoundEngine(const nb::dict& options, AnyRows rows, nb::object labels, double scale, double shift, int threads)
      : rows_(rows), engine_(spec_of(options), data_of(rows, labels, scale, shift), team(threads)) {
    want(rows_.shape(1) == (size_t)engine_.plan.spec.features, "rows: as many columns as features");
    want(!engine_.plan.spec.classes || labels_.size(), "labels: one for each row");
  }

  void set(int network, int layer, int kind, const In<float>& weight, const In<float>& bias) {
    const Inside inside(door_, kRunning, nullptr);
    set_layer(layer_at(layers(network), layer), kind, weight, bias);
  }

  void get(int network, int layer, int kind, const Out<float>& weight, const Out<float>& bias) {
    const Inside inside(door_, kRunning, kTorn);
    get_layer(layer_at(layers(network), layer), kind, weight, bias);
  }

  void load(uint64_t seed, uint64_t step) {
    Inside inside(door_, kRunning, nullptr);
    engine_.seed = seed;
    engine_.step = step;
    inside.mended();
  }

  long run(const In<double>& schedule, const Out<float>& metrics) {
    const Inside inside(door_, kRunning, kTorn);
    const size_t steps = schedule.size() / 3;
    want(schedule.size() == steps * 3 && metrics.size() == steps * fastgan::kMetrics, "metrics: wrong size");
    bool interrupted = false;
    const auto poll = [&] {
      nb::gil_scoped_acquire gil;
      return interrupted = PyErr_CheckSignals() != 0;
    };
    long done = 0;
    {
      nb::gil_scoped_release release;
      done = engine_.run((long)steps, reinterpret_cast<const fastgan::Schedule*>(schedule.data()), metrics.data(),
                         poll);
    }
    if (interrupted) throw nb::python_error();
    return done;
  }

  uint64_t step() {
    const Inside inside(door_, kRunning, kTorn);
    return engine_.step;
  }

  void stop() { engine_.stop(); }

  void profile(bool on) {
    const Inside inside(door_, kRunning, kTorn);
    engine_.profile(on);
  }

  nb::list profiled() {
    const Inside inside(door_, kRunning, kTorn);
    nb::list out;
    const std::vector<fastgan::Spent> spent = engine_.profiled();
    for (size_t i = 0; i < spent.size(); i++) {
      const fastgan::OpName& name = engine_.plan.names[i];
      out.append(nb::make_tuple(name.update, name.what, name.inputs, name.outputs, spent[i].seconds, spent[i].flops));
    }
    return out;
  }

 private:
  const std::vector<Layer>& layers(int network) const { return network == 0 ? engine_.plan.g : engine_.plan.d; }

  fastgan::DataRows data_of(const AnyRows& rows, const nb::object& labels, double scale, double shift) {
    fastgan::DataRows data;
    want(rows.ndim() == 2 && rows.shape(0) > 0, "rows: a matrix with at least one row");
    data.is_u8 = rows.dtype() == nb::dtype<uint8_t>();
    want(data.is_u8 || rows.dtype() == nb::dtype<float>(), "rows: uint8 or float32");
    data.rows = rows.data();
    data.size = rows.shape(0);
    data.scale = (float)scale;
    data.shift = (float)shift;
    if (!labels.is_none()) {
      want(nb::try_cast(labels, labels_, false), "labels: int64 [rows]");
      want(labels_.size() == data.size, "labels: one for each row");
      data.labels = labels_.data();
    }
    return data;
  }

  AnyRows rows_;
  In<int64_t> labels_;
  Engine engine_;
  std::atomic<pid_t> door_{0};
};

class BoundSampler {
 public:
  BoundSampler(const nb::dict& options, int threads) : sampler_(spec_of(options), team(threads)) {}

  void set(int layer, const In<float>& weight, const In<float>& bias) {
    const Inside inside(door_, kComputing, nullptr);
    set_layer(layer_at(sampler_.layers, layer), kParameter, weight, bias);
  }

  void rows(uint64_t seed, uint32_t stream, nb::object rows, nb::object labels, nb::object out, double scale,
            double shift) {
    Out<uint8_t> bytes;
    Out<float> floats;
    const bool is_u8 = nb::try_cast(out, bytes, false);
    if (!is_u8) floats = nb::cast<Out<float>>(out, false);
    const size_t size = is_u8 ? bytes.size() : floats.size(), features = (size_t)sampler_.spec.features;
    want(size % features == 0, "out: wrong number of elements");
    In<int64_t> label, index;
    const fastgan::RowNumbers numbers = numbers_of(rows, size / features, index);
    want(labels.is_none() || nb::try_cast(labels, label, false), "labels: int64 [count]");
    want(sampler_.spec.classes == 0 || label.size() == size / features, "labels: one for each row");
    // After a fork, what is left of a call is scratch memory.
    const Inside inside(door_, kComputing, nullptr);
    nb::gil_scoped_release release;
    sampler_.rows(seed, stream, numbers, (long)(size / features), label.data(), is_u8 ? bytes.data() : nullptr,
                  is_u8 ? nullptr : floats.data(), (float)scale, (float)shift);
  }

 private:
  fastgan::Sampler sampler_;
  std::atomic<pid_t> door_{0};
};

}  // namespace

void bind_models(nb::module_& m) {
  nb::class_<BoundEngine>(m, "Engine", "The alternating step in native code; see fastgan/engines/cpu.py.")
      .def(nb::init<const nb::dict&, AnyRows, nb::object, double, double, int>(), "options"_a, "rows"_a,
           "labels"_a.none(), "scale"_a, "shift"_a, "threads"_a)
      .def("load", &BoundEngine::load, "seed"_a, "step"_a)
      .def("set", &BoundEngine::set, "network"_a, "layer"_a, "kind"_a, "weight"_a, "bias"_a)
      .def("get", &BoundEngine::get, "network"_a, "layer"_a, "kind"_a, "weight"_a.noconvert(), "bias"_a.noconvert())
      .def("run", &BoundEngine::run, "schedule"_a, "metrics"_a.noconvert())
      .def("stop", &BoundEngine::stop)
      .def("profile", &BoundEngine::profile, "on"_a, "Measure each operation of run() from now on, or no longer.")
      .def("profiled", &BoundEngine::profiled,
           "Of each operation: update, what it does, inputs, outputs, seconds summed over threads, flops of products.")
      .def_prop_ro("step", &BoundEngine::step);

  nb::class_<BoundSampler>(m, "Sampler", "Rows of a trained generator; see fastgan/sampler.py.")
      .def(nb::init<const nb::dict&, int>(), "options"_a, "threads"_a)
      .def("set", &BoundSampler::set, "layer"_a, "weight"_a, "bias"_a)
      .def("rows", &BoundSampler::rows, "seed"_a, "stream"_a, "rows"_a, "labels"_a.none(), "out"_a.noconvert(),
           "scale"_a, "shift"_a);
}
