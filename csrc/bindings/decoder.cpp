#include "decoder/decoder.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "bindings/bindings.h"
#include "decoder/philox.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

using decoder::Config;
using decoder::Decoder;
template <class T>
using Array = py::array_t<T, py::array::c_style>;  // of exactly this type: bound with noconvert()

Config config_of(const py::object& c) {
  const auto n = [&](const char* name) { return c.attr(name).cast<int>(); };
  return {n("layers"), n("hidden"), n("heads"), n("kv_heads"), n("head_dim"), n("ffn"), n("vocab"), n("context"),
          c.attr("rope_theta").cast<double>(), c.attr("tied").cast<bool>(), c.attr("norm_eps").cast<double>()};
}

std::unique_ptr<Decoder> make(const py::object& config, const std::string& isa, int threads) {
  const decoder::Kernels* kernels = decoder::find_kernels(isa.c_str());
  if (!kernels) throw std::invalid_argument("the decoder has no instruction set '" + isa + "' on this machine.");
  return std::make_unique<Decoder>(config_of(config), *kernels, threads);
}

void set_tensor(Decoder& d, int index, const Array<float>& values) {
  const auto& tensors = d.weights().tensors();
  if (index < 0 || static_cast<size_t>(index) >= tensors.size())
    throw std::invalid_argument("there is no such tensor.");
  const auto& t = tensors[static_cast<size_t>(index)];
  if (values.size() != static_cast<py::ssize_t>(t.rows) * t.columns)
    throw std::invalid_argument("the tensor's size is not the model's.");
  py::gil_scoped_release release;
  d.weights().set(index, values.data(), d.threads());
}

void need(bool holds, const char* sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

// Lengths are held against one another here; what the arrays say, the decoder checks itself.
void step(Decoder& d, const Array<int32_t>& tokens, const Array<int32_t>& q_start, const Array<int32_t>& ctx_len,
          const Array<int32_t>& block_table, const Array<int32_t>& slot_map, const Array<uint8_t>& want_logits,
          const std::optional<py::array>& sampling, Array<int32_t>& next_token,
          std::optional<Array<float>>& logits) {
  const py::ssize_t seqs = ctx_len.size();
  need(tokens.ndim() == 1 && slot_map.ndim() == 1 && tokens.size() == slot_map.size(),
       "tokens and slot_map must be of shape [T].");
  need(q_start.ndim() == 1 && q_start.size() == seqs + 1, "q_start must be of shape [B + 1].");
  need(ctx_len.ndim() == 1 && want_logits.ndim() == 1 && want_logits.size() == seqs,
       "ctx_len and want_logits must be of shape [B].");
  need(block_table.ndim() == 2 && block_table.shape(0) == seqs, "block_table must be of shape [B, n].");
  need(next_token.ndim() == 1 && next_token.size() == seqs && next_token.writeable(),
       "out.next_token must be of shape [B] and writeable.");
  need(!sampling || (sampling->ndim() == 1 && sampling->size() == seqs && sampling->itemsize() == sizeof(ww_sampling) &&
                     (sampling->flags() & py::array::c_style)),
       "sampling must be of shape [B] and of the dtype SAMPLING.");
  need(!logits || (logits->ndim() == 2 && logits->shape(0) == seqs && logits->shape(1) == d.config().vocab &&
                   logits->writeable()),
       "out.logits must be of shape [B, V] and writeable.");
  const ww_batch batch = {static_cast<int32_t>(tokens.size()), static_cast<int32_t>(seqs),
                          static_cast<int32_t>(block_table.shape(1)), tokens.data(), q_start.data(), ctx_len.data(),
                          block_table.data(), slot_map.data(), want_logits.data(),
                          sampling ? static_cast<const ww_sampling*>(sampling->data()) : nullptr};
  ww_out out = {next_token.mutable_data(), logits ? logits->mutable_data() : nullptr};
  int code;
  {
    py::gil_scoped_release release;
    code = d.step(&batch, &out);
  }
  if (code == WW_E_INVALID) throw std::invalid_argument(d.error());
  if (code != WW_OK) throw std::runtime_error(d.error());
}

Array<float> dummy(uint64_t seed, int tensor, int64_t first, int64_t n, int fan_in) {
  need(first >= 0 && n >= 0 && fan_in > 0, "first, n and fan_in must not be negative.");
  Array<float> out(n);
  decoder::fill_dummy(seed, tensor, first, n, decoder::dummy_bound(fan_in), out.mutable_data());
  return out;
}

}  // namespace

void bind_decoder(py::module_& m) {
  using py::arg;
  m.attr("DECODER_MAX_SEQS") = decoder::kMaxSeqs;
  m.attr("DECODER_MAX_TOKENS") = decoder::kMaxTokens;
  m.attr("DECODER_BLOCK_SIZE") = decoder::kBlock;
  m.def("decoder_isas", [] {
    std::vector<std::string> names;
    decoder::each_kernels(
        [](void* ctx, const char* isa) { static_cast<std::vector<std::string>*>(ctx)->emplace_back(isa); }, &names);
    return names;
  });
  m.def("philox4x32", [](uint64_t seed, uint64_t low, uint64_t high) {
    const Philox4 p = philox4x32(seed, low, high);
    return py::make_tuple(p.word[0], p.word[1], p.word[2], p.word[3]);
  });
  m.def("dummy_elements", &dummy);
  py::class_<Decoder>(m, "Decoder")
      .def(py::init(&make), arg("config"), arg("isa"), arg("threads"))
      .def("load_dummy", [](Decoder& d, uint64_t seed) { d.weights().set_dummy(seed, d.threads()); },
           py::call_guard<py::gil_scoped_release>())
      .def("set_tensor", &set_tensor, arg("index"), arg("values").noconvert())
      .def("alloc_kv", &Decoder::alloc_kv, py::call_guard<py::gil_scoped_release>())
      .def("drop_kv", &Decoder::drop_kv, py::call_guard<py::gil_scoped_release>())
      .def("step", &step, arg("tokens").noconvert(), arg("q_start").noconvert(), arg("ctx_len").noconvert(),
           arg("block_table").noconvert(), arg("slot_map").noconvert(), arg("want_logits").noconvert(),
           arg("sampling").noconvert().none(true), arg("next_token").noconvert(), arg("logits").noconvert().none(true))
      .def_property_readonly("isa", [](const Decoder& d) { return d.kernels().isa; })
      .def_property_readonly("block_bytes", &Decoder::block_bytes)
      .def_property_readonly("engine", [](Decoder& d) { return reinterpret_cast<uintptr_t>(d.engine()); });
}

}  // namespace ww::bindings
