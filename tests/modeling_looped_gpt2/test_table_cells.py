"""A prompt as a table: cells see in turns their column of the examples, and their row; nothing has a place."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.cache_looped_gpt2 import cache_bytes
from tests.modeling_looped_gpt2.untied import UntiedLoops


CLOSE = {"rtol": 1e-4, "atol": 1e-5}
N_EXAMPLES = 5
CELLS = {"example_order": "cells", "position_embedding": "none", "n_layer": 2, "num_labels": 4}
HEADS = {
    "regression": (LoopedGPT2ForInContextRegression, "predictions", {}),
    "quantiles": (LoopedGPT2ForInContextRegression, "quantiles", {"n_quantiles": 5}),
    "classification": (LoopedGPT2ForInContextClassification, "logits", {}),
}
kinds = pytest.mark.parametrize("kind", HEADS)


@pytest.fixture
def make_table_model(make_config):
    def make(kind="regression", **changes):
        torch.manual_seed(0)
        head, _, settings = HEADS[kind]
        return head(make_config(**(CELLS | settings | changes))).eval()

    return make


def tables(kind, n_examples=N_EXAMPLES, n_rows=8, n_columns=3):
    """Three tables with a value missing here and there, the ys of their examples and the labels of their queries."""
    generator = torch.Generator().manual_seed(1)
    xs, values = (torch.randn(shape, generator=generator) for shape in ((3, n_rows, n_columns), (3, n_rows)))
    xs[0, 1, 0] = xs[1, -1, -1] = xs[2, :, 0] = float("nan")
    values = (2 * values).long().remainder(4) if kind == "classification" else values
    return {"xs": xs, "ys": values[:, :n_examples], "labels": values[:, n_examples:]}


def answers_of(model, kind, xs, ys, **options):
    return model(xs, ys, **options)[HEADS[kind][1]]


def pinball(quantiles, ys):
    """Koenker and Bassett's loss of each level, one after another."""
    n_levels, losses = quantiles.shape[-1], []
    for k in range(n_levels):
        level, missing = (k + 0.5) / n_levels, ys - quantiles[..., k]
        losses.append(torch.where(missing > 0, level * missing, (1 - level) * -missing))
    return sum(losses) / n_levels


class Twin(UntiedLoops):
    """Stock blocks with weights of their own for every loop; each query is asked alone, and each column runs alone."""

    def embed(self, xs, ys):
        """Cells (P, D + 1, E) of one table whose last row asks."""
        head, rows = self.head, []
        for place, x in enumerate(xs):
            cells = [head.read_in(torch.tensor([0.0, 1.0] if value.isnan() else [value, 0.0])) for value in x]
            if place == len(ys):
                cells.append(head.query_cell)
            else:
                is_class = hasattr(head, "embed_class")
                cells.append(head.embed_class(ys[place]) if is_class else head.read_in_y(ys[place].view(1)))
            rows.append(torch.stack(cells))
        return torch.stack(rows)

    def forward(self, xs, ys):
        """What is read, `(B, L, Q, ...)`."""
        n_examples = ys.shape[1]
        read = []
        for table, targets in zip(xs, ys, strict=True):
            asked = [torch.cat((table[:n_examples], query[None])) for query in table[n_examples:]]
            read.append(torch.stack([self.run(self.embed(each, targets)) for each in asked], dim=1))
        return torch.stack(read)

    def run(self, prompt):
        """Answers (L, ...) of cells (P, N, E), the last row of which asks."""
        hidden = torch.zeros(len(prompt), len(prompt))
        hidden[:-1, -1] = torch.finfo(hidden.dtype).min  # the examples do not see the query
        state, answers = torch.zeros_like(prompt), []
        for blocks, norm in zip(self.loops, self.norms, strict=True):
            state = state + prompt
            columns = [blocks[0](column[None], attention_mask=hidden[None, None])[0] for column in state.unbind(1)]
            state = torch.stack(columns, dim=1)
            row = torch.zeros(1, 1, state.shape[1], state.shape[1])
            state = torch.cat([blocks[1](cells[None], attention_mask=row) for cells in state])
            state = norm(state)
            answers.append(self.read_out(state[-1, -1]))
        return torch.stack(answers)

    def read_out(self, state):
        if hasattr(self.head, "score"):
            return self.head.score(state)
        read = self.head.read_out(state)
        return read.sort().values if len(read) > 1 else read[0]

    def summed_gradients(self):
        """Gradients by the looped model's names, those of the copies added up."""
        sums = {name: parameter.grad for name, parameter in self.head.named_parameters()}
        for part, copies in (("h", self.loops), ("ln_f", self.norms)):
            for twin in copies:
                for name, parameter in twin.named_parameters():
                    key = f"transformer.{part}.{name}"
                    sums[key] = parameter.grad if sums.get(key) is None else sums[key] + parameter.grad
        return sums


def naive_loss(kind, read, labels):
    labels = labels[:, None].expand(read.shape[:3])
    if kind == "classification":
        return nn.functional.cross_entropy(read.flatten(0, 2), labels.flatten())
    return pinball(read, labels).mean() if kind == "quantiles" else (read - labels).square().mean()


@kinds
@pytest.mark.parametrize(("n_loops", "checkpointing"), [(1, False), (2, True), (3, False), (5, False)])
def test_losses_and_gradients_are_those_of_the_twin(make_table_model, kind, n_loops, checkpointing):
    model, batch = make_table_model(kind, initializer_range=0.2).train(), tables(kind, n_loops - 1, n_rows=6)
    twin = Twin(model, n_loops)
    if checkpointing:  # renamed in transformers 5.23
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    flag = "output_loop_logits" if kind == "classification" else "output_loop_predictions"
    outputs = model(**batch, n_loops=n_loops, **{flag: True})
    expected = twin(batch["xs"], batch["ys"])
    torch.testing.assert_close(outputs[f"loop_{HEADS[kind][1]}"], expected, **CLOSE)
    loss = naive_loss(kind, expected, batch["labels"])
    torch.testing.assert_close(outputs.loss, loss, **CLOSE)
    outputs.loss.backward()
    loss.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if gradients[name] is None else gradients[name]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5, msg=name)


SHAPES = [
    {},
    {"n_prelude": 1, "n_coda": 1},
    {"input_injection": "concat", "block_loops": [1, 2]},
    {"residual_loops": True, "loop_encoding": "step"},
    {"adapter_rank": 2},
]


@kinds
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_rows_columns_and_queries_have_no_order(make_table_model, kind, shape, attention):
    model, batch = make_table_model(kind, attn_implementation=attention, **shape), tables(kind)
    xs, ys = batch["xs"], batch["ys"]
    examples, queries, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([7, 5, 6]), torch.tensor([2, 0, 1])
    before = answers_of(model, kind, xs, ys)
    shuffled = answers_of(model, kind, xs[:, torch.cat((examples, queries))][..., columns], ys[:, examples])
    torch.testing.assert_close(shuffled, before[:, queries - N_EXAMPLES], **CLOSE)
    alone = torch.cat([answers_of(model, kind, xs[:, [*range(N_EXAMPLES), q]], ys) for q in (5, 6, 7)], dim=1)
    torch.testing.assert_close(alone, before, **CLOSE)
    changed = xs.clone()
    changed[:, 0, 1] = 2.0
    assert not torch.allclose(answers_of(model, kind, changed, ys), before, atol=1e-4)


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_a_context_answers_as_whole_tables_do(make_table_model, kind, shape):
    model, batch = make_table_model(kind, **shape), tables(kind)
    xs, ys = batch["xs"], batch["ys"]
    ask = model.predict_quantiles if kind == "quantiles" else model.predict
    with torch.no_grad():
        for n_loops in (1, 3):
            context = model.encode_context(xs[:, :N_EXAMPLES], ys, n_loops=n_loops)
            expected = answers_of(model, kind, xs, ys, n_loops=n_loops)
            torch.testing.assert_close(ask(xs[:, N_EXAMPLES:], context), expected, **CLOSE)
            assert context.get_seq_length() == N_EXAMPLES


def test_many_queries_of_any_number_are_answered_alike_and_after_every_loop(make_table_model):
    model, batch = make_table_model("quantiles"), tables("quantiles")
    queries = torch.randn(3, 300, 3)
    with torch.no_grad():
        context = model.encode_context(batch["xs"][:, :N_EXAMPLES], batch["ys"], n_loops=3)
        whole = torch.cat((batch["xs"][:, :N_EXAMPLES], queries), dim=1)
        expected = model(whole, batch["ys"], n_loops=3, output_loop_predictions=True)
        torch.testing.assert_close(model.predict(queries, context), expected.predictions, **CLOSE)
        torch.testing.assert_close(expected.quantiles.mean(dim=-1), expected.predictions)
        assert (expected.loop_quantiles.diff(dim=-1) >= 0).all()
        torch.testing.assert_close(model.predict(queries, context, True), expected.loop_predictions, **CLOSE)
        torch.testing.assert_close(model.predict(queries[:, :1], context), expected.predictions[:, :1], **CLOSE)


def test_a_context_keeps_columns_alone(make_table_model):
    model, batch = make_table_model(), tables("regression")
    context = model.encode_context(batch["xs"][:, :N_EXAMPLES], batch["ys"], n_loops=3)
    n_numbers = 3 * 4 * N_EXAMPLES * 32  # of 3 tables of 4 columns with the target, E = 32
    assert cache_bytes(context) == 3 * 2 * 4 * n_numbers


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_table_ends_once_its_queries_have_settled_together(make_table_model, kind):
    model, batch = make_table_model(kind, n_loops=30), tables(kind)
    xs, ys = batch["xs"], batch["ys"]
    with torch.no_grad():
        states = model(xs, ys, output_loop_hidden_states=True).loop_hidden_states
        targets = torch.stack(states).unflatten(2, (8, 4))[:, :, N_EXAMPLES:, -1].flatten(2)  # (L, B, Q * E)
        change = (targets[1:] - targets[:-1]).norm(dim=-1) / targets[1:].norm(dim=-1)
        tolerance = change[5].mean().item()
        found = model(xs, ys, exit_tolerance=tolerance)
        settled = [next(at + 2 for at, value in enumerate(row) if value < tolerance) for row in change.T]
        assert found.n_loops_used.tolist() == settled
        for row, n_loops in enumerate(settled):
            alone = model(xs[row : row + 1], ys[row : row + 1], n_loops=n_loops)
            torch.testing.assert_close(found[model.answer_name][row], alone[model.answer_name][0], **CLOSE)
        if kind == "classification":
            confidence = model.score(states[3]).unflatten(1, (8, 4))[:, N_EXAMPLES:, -1].softmax(-1).amax(-1).mean(-1)
            used = model(xs, ys, exit_confidence=confidence[0].item() - 1e-6).n_loops_used
            assert used[0] <= 4


def test_tables_of_other_loops_run_side_by_side(make_table_model):
    model, batch = make_table_model(), tables("regression")
    counts = torch.tensor([1, 4, 2])
    found = model(batch["xs"], batch["ys"], n_loops=counts).predictions
    for row, n_loops in enumerate(counts.tolist()):
        alone = model(batch["xs"][row : row + 1], batch["ys"][row : row + 1], n_loops=n_loops).predictions
        torch.testing.assert_close(found[row], alone[0], **CLOSE)


def test_states_are_those_of_all_cells(make_table_model):
    model, batch = make_table_model(attn_implementation="eager"), tables("regression")
    outputs = model(batch["xs"], batch["ys"], n_loops=2, output_hidden_states=True, output_attentions=True)
    assert {tuple(states.shape) for states in outputs.hidden_states} == {(3, 8 * 4, 32)}
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(3 * 4, 4, 8, 8), (3 * 8, 4, 4, 4)] * 2


def test_an_implicit_gradient_flows_through_both_views(make_table_model):
    batch, gradients = tables("regression"), []
    for solver in ("unrolled", "implicit"):
        model = make_table_model(solver=solver).double().train()
        with torch.no_grad():  # quiet blocks and loud cells, or the loops would not settle
            for parameter in model.transformer.h.parameters():
                parameter /= 3
            for loud in (model.read_in.weight, model.read_in.bias, model.read_in_y.weight, model.query_cell):
                loud.normal_(std=3.0)
        predictions = model(batch["xs"].double(), batch["ys"].double(), n_loops=25).predictions
        (predictions - batch["labels"]).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_compiled_tables_have_the_same_answers(make_table_model, graphs):
    # without gradients, whose compilation takes a minute
    model, batch = make_table_model(), tables("regression")
    with torch.no_grad():
        expected = model(**batch).predictions
        model.transformer.compile_loops()
        torch.testing.assert_close(model(**batch).predictions, expected, **CLOSE)
    assert graphs


def test_saved_models_read_tables_where_the_project_is_unknown(make_table_model, tmp_path, run_isolated):
    asked = {}
    for kind in HEADS:
        model, batch = make_table_model(kind), tables(kind)
        model.save_pretrained(tmp_path / kind)
        xs, ys = batch["xs"], batch["ys"]
        asked[kind] = (xs, ys, HEADS[kind][1], answers_of(model, kind, xs, ys))
    torch.save(asked, tmp_path / "tables.pt")
    run_isolated(f"""
import torch
from transformers import AutoModel
for kind, (xs, ys, name, expected) in torch.load({str(tmp_path / "tables.pt")!r}).items():
    model = AutoModel.from_pretrained({str(tmp_path)!r} + "/" + kind, trust_remote_code=True)
    torch.testing.assert_close(model(xs, ys)[name], expected, msg=kind)
    predict = model.predict_quantiles if kind == "quantiles" else model.predict
    found = predict(xs[:, {N_EXAMPLES}:], model.encode_context(xs[:, :{N_EXAMPLES}], ys))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=kind)
""")


REFUSED = {
    "no columns": (lambda xs, ys: (xs[..., :0], ys), r"`xs` must have shape \(batch, n_points, n_columns\)"),
    "no queries": (lambda xs, ys: (xs[:, :N_EXAMPLES], ys), "a y for each example and none for a query"),
    "infinity": (lambda xs, ys: (xs / 0, ys), "`xs` must be finite"),
    "integers": (lambda xs, ys: (xs.nan_to_num().long(), ys), "`xs` must be floating point"),
    "missing ys": (lambda xs, ys: (xs, ys * float("nan")), "`ys` must be finite"),
    "huge": (lambda xs, ys: (xs * 1e30, ys), "The numbers overflow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_tables_are_refused(make_table_model, name):
    change, message = REFUSED[name]
    batch = tables("regression")
    with pytest.raises(ValueError, match=message):
        make_table_model()(*change(batch["xs"], batch["ys"]))


def test_queries_to_other_contexts_are_refused(make_table_model, make_config):
    model, batch = make_table_model(), tables("regression")
    xs, ys = batch["xs"], batch["ys"]
    context = model.encode_context(xs[:, :N_EXAMPLES], ys)
    with pytest.raises(ValueError, match="`context` is of tables of 3 columns, got queries of 2"):
        model.predict(xs[..., :2], context)
    with pytest.raises(ValueError, match="The batch size of `context` is 3, got queries or examples for 2"):
        model.predict(xs[:2], context)
    with pytest.raises(ValueError, match="`context` must be left out"):
        model.encode_context(xs[:, :N_EXAMPLES], ys, context=context)
    with pytest.raises(ValueError, match="`context` must be what `encode_context` returned"):
        model.predict(xs, torch.zeros(3))
    with pytest.raises(ValueError, match="`n_loops` must be an integer >= 1, got 0"):
        model.encode_context(xs[:, :N_EXAMPLES], ys, n_loops=0)
    with pytest.raises(ValueError, match="needs a model of quantiles, got `n_quantiles` = 0"):
        model.predict_quantiles(xs, context)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding": "learned"}, "`position_embedding` must be 'none' with `example_order='cells'`"),
        ({"n_layer": 3}, "`n_layer` must be even with `example_order='cells'`.* got 3"),
        ({"attention_window": 2}, "`attention_window` has no meaning with `example_order='cells'`"),
        ({"n_quantiles": -1}, "`n_quantiles` must be an integer >= 0, got -1"),
        ({"n_quantiles": 3, "n_outputs": 2}, "`n_quantiles` needs `n_outputs` = 1, got 2"),
    ],
)
def test_configurations_that_exclude_each_other_are_refused(make_config, changes, message):
    with pytest.raises(StrictDataclassError, match=message):
        make_config(**(CELLS | changes))


def test_cells_of_the_backbone_are_whole_rows(make_table_model):
    body, tokens = make_table_model().transformer, torch.zeros(2, 12, 32)
    with pytest.raises(ValueError, match="`n_cells` must be an integer >= 1 that divides the 12 tokens, got 5"):
        body(inputs_embeds=tokens, n_cells=5)
    with pytest.raises(ValueError, match=r"`attention_mask` must have the shape \(1, 1, 3\)"):
        body(inputs_embeds=tokens, n_cells=4)


def test_bfloat16_reads_tables_too(make_table_model):
    batch, model = tables("regression"), make_table_model()
    before = answers_of(model, "regression", batch["xs"], batch["ys"])
    with torch.autocast("cpu", torch.bfloat16):
        found = answers_of(model, "regression", batch["xs"], batch["ys"])
    torch.testing.assert_close(found.float(), before, rtol=0.1, atol=0.1)
