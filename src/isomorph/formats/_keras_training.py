"""How a model of Keras is to be trained: optimizer, losses and metrics, from one generation's form into another's.

Files of Keras 3 have a `compile_config`, older ones and LayersModels a `training_config`. In memory it is the older form with what every generation knows, as
JSON in the metadata of the model, so that a file of ONNX carries it too. Nothing that only its author has the code of is carried: a finding names it.
"""
from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from isomorph.report import Finding, Severity

if TYPE_CHECKING:
    from isomorph.model import Model

KEY = "keras.training_config"
FIELDS = ("loss", "metrics", "weighted_metrics", "loss_weights")
NAME = re.compile(r"[A-Za-z]\w*")
# Settings of optimizers that Keras 2 and Keras 3 both know; the others of Keras 2 say how it is run.
SETTINGS = frozenset((
    "name", "learning_rate", "momentum", "nesterov", "rho", "epsilon", "centered", "beta_1", "beta_2", "amsgrad", "weight_decay", "clipnorm", "clipvalue",
    "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency", "initial_accumulator_value", "learning_rate_power",
    "l1_regularization_strength", "l2_regularization_strength", "l2_shrinkage_regularization_strength", "beta",
))
MODULES = {"loss": "keras.losses", "metrics": "keras.metrics", "weighted_metrics": "keras.metrics"}
SCHEDULES = "keras.optimizers.schedules"
TFJS_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSProp", "adagrad": "Adagrad", "adadelta": "Adadelta", "adamax": "Adamax"}


# What the last releases of Keras 2 register under the package of authors who name none.
OWN = frozenset(f"Custom>{name}" for name in ("SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "AdamW", "Adafactor", "Lion"))


class Foreign(Exception):
    """Something that is not Keras' own."""


def keep(model: Model, training: Any) -> None:
    """Puts what a file says into the metadata of the model, or a finding where that names code of others or cannot be understood."""
    if not training:
        return
    try:
        model.ir.metadata_props[KEY] = json.dumps(neutral(json.loads(training) if isinstance(training, str) else training))
    except (Foreign, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = str(error) if isinstance(error, Foreign) else "it has not the form that Keras gives it"
        model.findings.append(Finding("keras.training", Severity.LOW, "training configuration", f"how the model was trained is left out: {said}"))


def kept(model: Model) -> dict[str, Any] | None:
    """What `keep` has put there, by way of whatever file."""
    text = model.ir.metadata_props.get(KEY)
    try:
        found = json.loads(text) if text else None
        return neutral(found) if found else None
    except (Foreign, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def neutral(training: dict[str, Any]) -> dict[str, Any]:
    """Either form as {"optimizer_config": {"class_name", "config"}, "loss", "metrics", ...}. Raises `Foreign` for what is not Keras' own."""
    optimizer = training["optimizer_config"] if "optimizer_config" in training else training["optimizer"]
    if isinstance(optimizer, dict) and optimizer.get("class_name") in OWN:
        optimizer = {"class_name": optimizer["class_name"].removeprefix("Custom>"), "config": optimizer.get("config")}
    optimizer = _named(optimizer)
    if isinstance(optimizer, str):
        optimizer = {"class_name": optimizer, "config": {}}
    settings = dict(optimizer["config"])
    settings.setdefault("learning_rate", settings.get("lr", 0.001))
    config = {key: _named(value) for key, value in settings.items() if key in SETTINGS and value is not None}
    found = {"optimizer_config": {"class_name": optimizer["class_name"], "config": config}}
    return found | {field: _named(training.get(field)) for field in FIELDS}


def _named(value: Any) -> Any:
    """Names, numbers, and objects of Keras as {"class_name", "config"}, in lists and dictionaries of them."""
    if isinstance(value, list):
        items = [_named(item) for item in value]
        return items[0] if len(items) == 1 and isinstance(items[0], list) else items
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise Foreign(f"{value[:60]!r} is no name of Keras")
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {key: _named(item) for key, item in value.items()}
    module, registered = str(value.get("module") or "keras"), str(value.get("registered_name") or "")
    if module.split(".")[0] not in ("keras", "builtins", "tf_keras") or ">" in registered or not NAME.fullmatch(str(value["class_name"])):
        raise Foreign(f"{registered or value['class_name']} is the author's own")
    config = value.get("config")
    if value["class_name"] == "function" or not isinstance(config, dict):
        return _named(config)
    if value["class_name"] == "MeanMetricWrapper":                        # Keras 2: the function by its name
        return _named(config.get("fn"))
    settings = {key: _named(item) if isinstance(item, (dict, list)) else item for key, item in config.items() if key not in ("fn", "dtype")}
    if settings.get("reduction") == "auto":
        del settings["reduction"]
    return {"class_name": value["class_name"], "config": settings}


def modern(training: dict[str, Any]) -> dict[str, Any]:
    """As Keras 3 has it in `compile_config`."""
    optimizer = training["optimizer_config"]
    config = {key: _object(value, SCHEDULES) for key, value in optimizer["config"].items()}
    made = {"module": "keras.optimizers", "class_name": optimizer["class_name"], "config": config, "registered_name": None}
    return {"optimizer": made} | {field: _object(training[field], MODULES.get(field, "")) for field in FIELDS}


def _object(value: Any, module: str) -> Any:
    if isinstance(value, list):
        return [_object(item, module) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return {"module": module, "class_name": value["class_name"], "config": value["config"], "registered_name": None}
    return {key: _object(item, module) for key, item in value.items()}


def for_tfjs(training: dict[str, Any]) -> dict[str, Any] | None:
    """As TensorFlow.js reads it, which knows six optimizers, losses and metrics by name, and no weights of either. None where there is more."""
    optimizer = training["optimizer_config"]
    name = TFJS_OPTIMIZERS.get(optimizer["class_name"].lower())
    plain = isinstance(training["loss"], str) and all(isinstance(each, str) for each in training["metrics"] or [])
    if name is None or not plain or training["weighted_metrics"] or training["loss_weights"] or not isinstance(optimizer["config"]["learning_rate"], float):
        return None
    settings = {key: value for key, value in optimizer["config"].items() if key != "name"}
    return {"optimizer_config": {"class_name": name, "config": settings}, "loss": training["loss"], "metrics": training["metrics"] or []}
