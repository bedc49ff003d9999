"""The code that a saved model carries, without the estimators and the heads of others."""

# of a regression model; a new file of the model belongs here
REGRESSION_CODE = {
    "arguments_looped_gpt2.py",
    "cache_looped_gpt2.py",
    "configuration_looped_gpt2.py",
    "example_orders_looped_gpt2.py",
    "implicit_solvers_looped_gpt2.py",
    "in_context_checks_looped_gpt2.py",
    "in_context_looped_gpt2.py",
    "injections_looped_gpt2.py",
    "loop_body_looped_gpt2.py",
    "loop_weights_looped_gpt2.py",
    "masks_looped_gpt2.py",
    "modeling_looped_gpt2.py",
    "modeling_looped_gpt2_regression.py",
    "plan_looped_gpt2.py",
    "positions_looped_gpt2.py",
    "solvers_looped_gpt2.py",
    "stop_rules_looped_gpt2.py",
    "views_looped_gpt2.py",
}
