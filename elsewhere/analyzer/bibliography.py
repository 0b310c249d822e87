"""The literature as BibTeX: what methods rest on, and what several measures share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from elsewhere.errors import UnknownNameError
from elsewhere.measures import entry, measures

BIBLIOGRAPHY = MappingProxyType(
    {
        "adebayo2018": entry(
            "inproceedings",
            author="Adebayo, Julius and Gilmer, Justin and Muelly, Michael and others",
            title="Sanity Checks for Saliency Maps",
            booktitle="Advances in Neural Information Processing Systems",
            year="2018",
        ),
        "bach2015": entry(
            "article",
            author="Bach, Sebastian and Binder, Alexander and Montavon, Gr{\\'e}goire and others",
            title="On Pixel-Wise Explanations by Layer-Wise Relevance Propagation",
            journal="PLOS ONE",
            volume="10",
            number="7",
            year="2015",
        ),
        "biscione2021": entry(
            "article",
            author="Biscione, Valerio and Bowers, Jeffrey S.",
            title="Convolutional Neural Networks Are Not Invariant to Translation, but They Can "
            "Learn to Be",
            journal="Journal of Machine Learning Research",
            volume="22",
            number="229",
            pages="1--28",
            year="2021",
        ),
        "hewitt2019": entry(
            "inproceedings",
            author="Hewitt, John and Liang, Percy",
            title="Designing and Interpreting Probes with Control Tasks",
            booktitle="Empirical Methods in Natural Language Processing",
            year="2019",
        ),
        "kimeldorf1971": entry(
            "article",
            author="Kimeldorf, George and Wahba, Grace",
            title="Some Results on Tchebycheffian Spline Functions",
            journal="Journal of Mathematical Analysis and Applications",
            volume="33",
            pages="82--95",
            year="1971",
        ),
        "charikar2002": entry(
            "inproceedings",
            author="Charikar, Moses and Chen, Kevin and Farach-Colton, Martin",
            title="Finding Frequent Items in Data Streams",
            booktitle="International Colloquium on Automata, Languages and Programming",
            year="2002",
        ),
        "efron1993": entry(
            "book",
            author="Efron, Bradley and Tibshirani, Robert J.",
            title="An Introduction to the Bootstrap",
            publisher="Chapman \\& Hall",
            year="1993",
        ),
        "hong2016": entry(
            "article",
            author="Hong, Ha and Yamins, Daniel L. K. and Majaj, Najib J. and DiCarlo, James J.",
            title="Explicit Information for Category-Orthogonal Object Properties Increases along "
            "the Ventral Stream",
            journal="Nature Neuroscience",
            volume="19",
            number="4",
            pages="613--622",
            year="2016",
        ),
        "kokhlikyan2020": entry(
            "misc",
            author="Kokhlikyan, Narine and Miglani, Vivek and Martin, Miguel and others",
            title="Captum: A Unified and Generic Model Interpretability Library for PyTorch",
            howpublished="arXiv:2009.07896",
            year="2020",
        ),
        "liu2020": entry(
            "misc",
            author="Liu, Renjie",
            title="Higher Accuracy on Vision Models with {EfficientNet-Lite}",
            howpublished="TensorFlow blog",
            year="2020",
        ),
        "lundberg2017": entry(
            "inproceedings",
            author="Lundberg, Scott M. and Lee, Su-In",
            title="A Unified Approach to Interpreting Model Predictions",
            booktitle="Advances in Neural Information Processing Systems",
            year="2017",
        ),
        "russakovsky2015": entry(
            "article",
            author="Russakovsky, Olga and Deng, Jia and Su, Hao and others",
            title="{ImageNet} Large Scale Visual Recognition Challenge",
            journal="International Journal of Computer Vision",
            volume="115",
            number="3",
            pages="211--252",
            year="2015",
        ),
        "selvaraju2017": entry(
            "inproceedings",
            author="Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and others",
            title="Grad-CAM: Visual Explanations from Deep Networks",
            booktitle="International Conference on Computer Vision",
            year="2017",
        ),
        "shrikumar2017": entry(
            "inproceedings",
            author="Shrikumar, Avanti and Greenside, Peyton and Kundaje, Anshul",
            title="Learning Important Features Through Propagating Activation Differences",
            booktitle="International Conference on Machine Learning",
            year="2017",
        ),
        "simonyan2014": entry(
            "inproceedings",
            author="Simonyan, Karen and Vedaldi, Andrea and Zisserman, Andrew",
            title="Deep Inside Convolutional Networks",
            booktitle="International Conference on Learning Representations, Workshop",
            year="2014",
        ),
        "springenberg2015": entry(
            "inproceedings",
            author="Springenberg, Jost Tobias and Dosovitskiy, Alexey and others",
            title="Striving for Simplicity: The All Convolutional Net",
            booktitle="International Conference on Learning Representations, Workshop",
            year="2015",
        ),
        "sundararajan2017": entry(
            "inproceedings",
            author="Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
            title="Axiomatic Attribution for Deep Networks",
            booktitle="International Conference on Machine Learning",
            year="2017",
        ),
        "tan2019": entry(
            "inproceedings",
            author="Tan, Mingxing and Le, Quoc V.",
            title="{EfficientNet}: Rethinking Model Scaling for Convolutional Neural Networks",
            booktitle="International Conference on Machine Learning",
            year="2019",
        ),
        "wightman2019": entry(
            "misc",
            author="Wightman, Ross",
            title="{PyTorch} Image Models",
            howpublished="GitHub, huggingface/pytorch-image-models",
            year="2019",
        ),
        "yeh2019": entry(
            "inproceedings",
            author="Yeh, Chih-Kuan and Hsieh, Cheng-Yu and Suggala, Arun Sai and others",
            title="On the (In)fidelity and Sensitivity of Explanations",
            booktitle="Advances in Neural Information Processing Systems",
            year="2019",
        ),
        "zeiler2014": entry(
            "inproceedings",
            author="Zeiler, Matthew D. and Fergus, Rob",
            title="Visualizing and Understanding Convolutional Networks",
            booktitle="European Conference on Computer Vision",
            year="2014",
        ),
        "zhang2019": entry(
            "inproceedings",
            author="Zhang, Richard",
            title="Making Convolutional Networks Shift-Invariant Again",
            booktitle="International Conference on Machine Learning",
            pages="7324--7334",
            year="2019",
        ),
    }
)


SOFTWARE = "elsewhere2026"
"""The key of this package."""


def cited_in(text: str) -> set[str]:
    """Return the keys of the literature that a text cites in brackets.

    Examples
    --------
    >>> sorted(cited_in("[efron1993] and [kornblith2019, song2012], of [0, 1] and [elsewhere2026]"))
    ['efron1993', 'kornblith2019', 'song2012']
    """
    known = _known()
    found = re.findall(r"\[([^][]+)\]", text)
    return {key for group in found for key in group.split(", ") if key in known}


def _known() -> dict[str, tuple[str, Mapping[str, str]]]:
    """Return the bibliography with the literature of every measure."""
    known: dict[str, tuple[str, Mapping[str, str]]] = dict(BIBLIOGRAPHY)
    for name in measures:
        known |= measures.get(name).literature
    return known


def to_bibtex(keys: Iterable[str], *, version: str = "") -> str:
    """Return entries of the bibliography as BibTeX, sorted, the software's own last.

    Parameters
    ----------
    keys
        Keys of :data:`BIBLIOGRAPHY`, and of the literature of registered measures.
    version
        Of this package; without it there is no entry of the software.

    Examples
    --------
    >>> print(to_bibtex(["efron1993"]))
    @book{efron1993,
      author = {Efron, Bradley and Tibshirani, Robert J.},
      title = {An Introduction to the Bootstrap},
      publisher = {Chapman \\& Hall},
      year = {1993},
    }
    """
    known = _known()
    entries = []
    for key in sorted(set(keys)):
        if key not in known:
            raise UnknownNameError("reference", key, known)
        entries.append((key, *known[key]))
    if version:
        entries.append(
            (
                SOFTWARE,
                "software",
                {
                    "author": "{The elsewhere developers}",
                    "title": "elsewhere: translation invariance of vision networks, layer by layer",
                    "year": "2026",
                    "version": version,
                    "howpublished": "Python package",
                },
            )
        )
    return "\n\n".join(
        "\n".join(
            [
                f"@{kind}{{{key},",
                *(f"  {name} = {{{value}}}," for name, value in fields.items()),
                "}",
            ]
        )
        for key, kind, fields in entries
    )
