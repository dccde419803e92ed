"""The same model as an ONNX graph, in the operators ONNX Runtime's own exporters use for Llama on the CPU.

Packed QKV into com.microsoft GroupQueryAttention (rotary inside, KV cache shared between past and present),
SkipSimplifiedLayerNormalization, MatMuls over constant weights (packed ahead by the session), logits of the last
position only.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from wattwork.engines.base import ModelConfig
from wattwork.engines.weights import each_tensor, tensors

MS = "com.microsoft"


class Graph:
    def __init__(self) -> None:
        self.nodes, self.constants = [], []

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def node(self, op, inputs, outputs, domain="", **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]


def rope_caches(c: ModelConfig):
    frequencies = (1.0 / c.rope_theta ** (np.arange(0, c.head_dim, 2) / c.head_dim)).astype(np.float32)
    angles = np.arange(c.context, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def build(c: ModelConfig, weights: str) -> onnx.ModelProto:
    names, w, g = [t.name for t in tensors(c)], {}, Graph()
    each_tensor(c, weights, lambda i, values: w.__setitem__(names[i], values))
    cos, sin = rope_caches(c)
    g.constant("cos", cos)
    g.constant("sin", sin)
    embed = w["model.embed_tokens.weight"]
    g.node("Gather", [g.constant("embed", embed), "tokens"], "x")
    norm = {"epsilon": c.norm_eps}
    h = g.node("SimplifiedLayerNormalization", ["x", g.constant("n0", w["model.layers.0.input_layernorm.weight"])],
               "h0", axis=-1, **norm)  # fmt: skip
    x = "x"
    values = []
    for i in range(c.layers):
        p = f"model.layers.{i}."
        m = {k: w[f"{p}{k}.weight"] for k in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}  # fmt: skip
        qkv = np.concatenate([m["self_attn.q_proj"], m["self_attn.k_proj"], m["self_attn.v_proj"]]).T
        g.node("MatMul", [h, g.constant(f"qkv_w{i}", qkv)], f"qkv{i}")
        g.node("GroupQueryAttention",
               [f"qkv{i}", "", "", f"past_k{i}", f"past_v{i}", "seqlens_k", "total_length", "cos", "sin"],
               [f"a{i}", f"present_k{i}", f"present_v{i}"], MS,
               num_heads=c.heads, kv_num_heads=c.kv_heads, do_rotary=1)  # fmt: skip
        values += [f"k{i}", f"v{i}"]
        g.node("MatMul", [f"a{i}", g.constant(f"o_w{i}", m["self_attn.o_proj"].T)], f"o{i}")
        g.constant(f"n1_{i}", w[p + "post_attention_layernorm.weight"])
        g.node("SkipSimplifiedLayerNormalization", [x, f"o{i}", f"n1_{i}"], [f"f{i}", "", "", f"x1_{i}"], MS, **norm)
        g.node("MatMul", [f"f{i}", g.constant(f"gate_w{i}", m["mlp.gate_proj"].T)], f"gate{i}")
        g.node("MatMul", [f"f{i}", g.constant(f"up_w{i}", m["mlp.up_proj"].T)], f"up{i}")
        g.node("QuickGelu", [f"gate{i}"], f"silu{i}", MS, alpha=1.0)
        g.node("Mul", [f"silu{i}", f"up{i}"], f"act{i}")
        g.node("MatMul", [f"act{i}", g.constant(f"down_w{i}", m["mlp.down_proj"].T)], f"down{i}")
        following = f"model.layers.{i + 1}.input_layernorm.weight" if i + 1 < c.layers else "model.norm.weight"
        g.constant(f"n2_{i}", w[following])
        h, x = f"h{i + 1}", f"x{i + 1}"
        g.node("SkipSimplifiedLayerNormalization", [f"x1_{i}", f"down{i}", f"n2_{i}"], [h, "", "", x], MS, **norm)
    g.node("Gather", [h, g.constant("last", np.array(-1, np.int64))], "h_last", axis=1)
    head = embed if c.tied else w["lm_head.weight"]
    g.node("MatMul", ["h_last", g.constant("head_w", head.T)], "logits")

    def kv(kind):
        return [helper.make_tensor_value_info(f"{kind}_{v}", TensorProto.FLOAT, ["b", c.kv_heads, "m", c.head_dim])
                for v in values]  # fmt: skip

    i32, i64 = TensorProto.INT32, TensorProto.INT64
    inputs = [helper.make_tensor_value_info("tokens", i64, ["b", "s"]),
              helper.make_tensor_value_info("seqlens_k", i32, ["b"]),
              helper.make_tensor_value_info("total_length", i32, [1]), *kv("past")]  # fmt: skip
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", c.vocab]), *kv("present")]
    graph = helper.make_graph(g.nodes, "llama", inputs, outputs, g.constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)], ir_version=10
    )


class OnnxRuntime:
    """The graph in a session of `threads` threads, with one KV cache of `length` positions that it updates in place."""

    def __init__(self, config: ModelConfig, weights: str, threads: int, batch: int, length: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        model = build(config, weights).SerializeToString()
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.config, self.batch = config, batch
        shape = (batch, config.kv_heads, length, config.head_dim)
        self.kv = {f"{n}{i}": ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
                   for i in range(config.layers) for n in "kv"}  # fmt: skip
        self.logits = ort.OrtValue.ortvalue_from_numpy(np.zeros((batch, config.vocab), np.float32))

    def step(self, tokens, context):
        """tokens [B, S] after `context` cached ones; the logits [B, V] of the last."""
        binding, total = self.session.io_binding(), context + tokens.shape[1]
        binding.bind_cpu_input("tokens", np.ascontiguousarray(tokens, np.int64))
        binding.bind_cpu_input("seqlens_k", np.full(self.batch, total - 1, np.int32))
        binding.bind_cpu_input("total_length", np.array([total], np.int32))
        for name, value in self.kv.items():
            binding.bind_ortvalue_input(f"past_{name}", value)
            binding.bind_ortvalue_output(f"present_{name}", value)
        binding.bind_ortvalue_output("logits", self.logits)
        self.session.run_with_iobinding(binding)
        return self.logits.numpy()
