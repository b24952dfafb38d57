"""PMML: the XML of the Data Mining Group."""
from __future__ import annotations

from typing import TYPE_CHECKING

from isomorph.formats import Format, Match
from isomorph.wire import xml_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

# The MODEL-ELEMENT group of the PMML 4.4.1 schema
MODELS = (
    "AnomalyDetectionModel", "AssociationModel", "BayesianNetworkModel", "BaselineModel", "ClusteringModel", "GaussianProcessModel", "GeneralRegressionModel",
    "MiningModel", "NaiveBayesModel", "NearestNeighborModel", "NeuralNetwork", "RegressionModel", "RuleSetModel", "SequenceModel", "Scorecard",
    "SupportVectorMachineModel", "TextModel", "TimeSeriesModel", "TreeModel",
)


def identify(artifact: Artifact) -> Match | None:
    """Recognises the root element PMML: its version, the model element (of an ensemble the outermost), and whether test vectors are embedded."""
    root = xml_head.read(artifact.head) if not artifact.is_folder else None
    if root is None or root.name != "PMML":
        return None
    found = xml_head.elements(artifact.view, [*MODELS, "Application", "ModelVerification", "Extension"])
    models = [name for name in found if name in MODELS]
    version = root.attributes.get("version") or root.attributes.get("xmlns", "").rpartition("PMML-")[2].replace("_", ".")
    detail = {"models": models, "verification": "ModelVerification" in found, "doctype": root.doctype}
    return Match("pmml", version, models[0] if models else "", "graph", detail)


FORMAT = Format(
    name="pmml", title="PMML", extensions=(".pmml",), holds="graph", spec="https://dmg.org/pmml/v4-4-1/GeneralStructure.html", identify=identify,
    dialect="pmml",
)
