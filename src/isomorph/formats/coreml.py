"""Core ML: .mlmodel, one protobuf message of any of its model types, and .mlpackage, a folder around it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import json_head, protobuf_head
from isomorph.wire.protobuf_head import BYTES, VARINT, Field

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

# The oneof Type of Model.proto: field number -> name
TYPES = {
    200: "pipelineClassifier", 201: "pipelineRegressor", 202: "pipeline", 300: "glmRegressor", 301: "supportVectorRegressor", 302: "treeEnsembleRegressor",
    303: "neuralNetworkRegressor", 304: "bayesianProbitRegressor", 400: "glmClassifier", 401: "supportVectorClassifier", 402: "treeEnsembleClassifier",
    403: "neuralNetworkClassifier", 404: "kNearestNeighborsClassifier", 500: "neuralNetwork", 501: "itemSimilarityRecommender", 502: "mlProgram",
    555: "customModel", 556: "linkedModel", 560: "classConfidenceThresholding", 600: "oneHotEncoder", 601: "imputer", 602: "featureVectorizer",
    603: "dictVectorizer", 604: "scaler", 606: "categoricalMapping", 607: "normalizer", 609: "arrayFeatureExtractor", 610: "nonMaximumSuppression",
    900: "identity", 2000: "textClassifier", 2001: "wordTagger", 2002: "visionFeaturePrint", 2003: "soundAnalysisPreprocessing", 2004: "gazetteer",
    2005: "wordEmbedding", 2006: "audioFeaturePrint", 3000: "serializedModel",
}
SPECIFICATION, DESCRIPTION, UPDATABLE = 1, 2, 10
MODEL = {SPECIFICATION: VARINT, DESCRIPTION: BYTES, UPDATABLE: VARINT} | dict.fromkeys(TYPES, BYTES)
INPUTS, OUTPUTS, METADATA = 1, 10, 100
NEWEST_SPECIFICATION = 64


def identify(artifact: Artifact) -> Match | None:
    """Recognises the message by its specification version and one model type, the package by its manifest."""
    if artifact.is_folder:
        return _identify_package(artifact)
    view = artifact.view
    message = protobuf_head.outline(view, most=64)
    version = message.first(SPECIFICATION)
    kinds = [item.number for item in message.fields if item.number in TYPES] or [message.cut]
    if not message.valid or not message.fits(MODEL) or version is None or not 0 < version.value <= NEWEST_SPECIFICATION or kinds[0] not in TYPES:
        return None
    updatable = message.first(UPDATABLE)
    detail = _description(view, message.first(DESCRIPTION)) | {"updatable": bool(updatable and updatable.value)}
    if message.cut:
        detail["truncated"] = True
    return Match("coreml", str(version.value), TYPES[kinds[0]], "graph", detail)


def _description(view: memoryview, item: Field | None) -> dict[str, Any]:
    """Names of inputs and outputs, and the author's text where there is one."""
    if item is None:
        return {}
    fields = protobuf_head.outline(view, item.start, item.stop, 1_000)
    names = {"inputs": INPUTS, "outputs": OUTPUTS}
    detail: dict[str, Any] = {key: [_first_text(view, feature) for feature in fields.all(number)] for key, number in names.items()}
    metadata = fields.first(METADATA)
    if metadata and (text := _first_text(view, metadata)):
        detail["description"] = text
    return detail


def _first_text(view: memoryview, item: Field) -> str:
    return protobuf_head.text(view, protobuf_head.outline(view, item.start, item.stop, 16).first(1))


def _identify_package(artifact: Artifact) -> Match | None:
    """The manifest lists items by identifier and names the one that is the model. Its path is a path below Data and never followed outside."""
    manifest = artifact.child("Manifest.json") if "Manifest.json" in artifact.names else None
    document = json_head.read(manifest.head).value if manifest and not manifest.is_folder else None
    items = document.get("itemInfoEntries") if isinstance(document, dict) else None
    root = items.get(document.get("rootModelIdentifier")) if isinstance(items, dict) and isinstance(document, dict) else None
    data = artifact.child("Data")
    path = root.get("path") if isinstance(root, dict) else None
    file = data.child(path) if data and isinstance(path, str) and path else None
    match = identify(file) if file and not file.is_folder else None
    if match is not None:
        match.detail["package"] = True
    return match


FORMAT = Format(
    name="coreml", title="Core ML", extensions=(".mlpackage", ".mlmodel"), holds="graph", spec="https://apple.github.io/coremltools/mlmodel/index.html",
    identify=identify, dialect="mil",
)
