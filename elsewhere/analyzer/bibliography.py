"""The literature that measures come from, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from elsewhere.errors import UnknownNameError


def _entry(kind: str, **fields: str) -> tuple[str, dict[str, str]]:
    return kind, fields


BIBLIOGRAPHY = MappingProxyType(
    {
        "adebayo2018": _entry(
            "inproceedings",
            author="Adebayo, Julius and Gilmer, Justin and Muelly, Michael and others",
            title="Sanity Checks for Saliency Maps",
            booktitle="Advances in Neural Information Processing Systems",
            year="2018",
        ),
        "azulay2019": _entry(
            "article",
            author="Azulay, Aharon and Weiss, Yair",
            title="Why Do Deep Convolutional Networks Generalize so Poorly to Small Image "
            "Transformations?",
            journal="Journal of Machine Learning Research",
            volume="20",
            number="184",
            pages="1--25",
            year="2019",
        ),
        "bach2015": _entry(
            "article",
            author="Bach, Sebastian and Binder, Alexander and Montavon, Gr{\\'e}goire and others",
            title="On Pixel-Wise Explanations by Layer-Wise Relevance Propagation",
            journal="PLOS ONE",
            volume="10",
            number="7",
            year="2015",
        ),
        "biscione2021": _entry(
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
        "charikar2002": _entry(
            "inproceedings",
            author="Charikar, Moses and Chen, Kevin and Farach-Colton, Martin",
            title="Finding Frequent Items in Data Streams",
            booktitle="International Colloquium on Automata, Languages and Programming",
            year="2002",
        ),
        "dicarlo2007": _entry(
            "article",
            author="DiCarlo, James J. and Cox, David D.",
            title="Untangling Invariant Object Recognition",
            journal="Trends in Cognitive Sciences",
            volume="11",
            number="8",
            pages="333--341",
            year="2007",
        ),
        "efron1993": _entry(
            "book",
            author="Efron, Bradley and Tibshirani, Robert J.",
            title="An Introduction to the Bootstrap",
            publisher="Chapman \\& Hall",
            year="1993",
        ),
        "hong2016": _entry(
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
        "kauderer2017": _entry(
            "misc",
            author="Kauderer-Abrams, Eric",
            title="Quantifying Translation-Invariance in Convolutional Neural Networks",
            eprint="1801.01450",
            archiveprefix="arXiv",
            year="2017",
        ),
        "kay2008": _entry(
            "article",
            author="Kay, Kendrick N. and Naselaris, Thomas and Prenger, Ryan J. and "
            "Gallant, Jack L.",
            title="Identifying Natural Images from Human Brain Activity",
            journal="Nature",
            volume="452",
            number="7185",
            pages="352--355",
            year="2008",
        ),
        "kokhlikyan2020": _entry(
            "misc",
            author="Kokhlikyan, Narine and Miglani, Vivek and Martin, Miguel and others",
            title="Captum: A Unified and Generic Model Interpretability Library for PyTorch",
            howpublished="arXiv:2009.07896",
            year="2020",
        ),
        "kornblith2019": _entry(
            "inproceedings",
            author="Kornblith, Simon and Norouzi, Mohammad and Lee, Honglak and Hinton, Geoffrey",
            title="Similarity of Neural Network Representations Revisited",
            booktitle="International Conference on Machine Learning",
            pages="3519--3529",
            year="2019",
        ),
        "kriegeskorte2008": _entry(
            "article",
            author="Kriegeskorte, Nikolaus and Mur, Marieke and Bandettini, Peter",
            title="Representational Similarity Analysis -- Connecting the Branches of Systems "
            "Neuroscience",
            journal="Frontiers in Systems Neuroscience",
            volume="2",
            pages="4",
            year="2008",
        ),
        "lenc2015": _entry(
            "inproceedings",
            author="Lenc, Karel and Vedaldi, Andrea",
            title="Understanding Image Representations by Measuring Their Equivariance and "
            "Equivalence",
            booktitle="IEEE Conference on Computer Vision and Pattern Recognition",
            pages="991--999",
            year="2015",
        ),
        "lundberg2017": _entry(
            "inproceedings",
            author="Lundberg, Scott M. and Lee, Su-In",
            title="A Unified Approach to Interpreting Model Predictions",
            booktitle="Advances in Neural Information Processing Systems",
            year="2017",
        ),
        "mitchell2008": _entry(
            "article",
            author="Mitchell, Tom M. and Shinkareva, Svetlana V. and Carlson, Andrew and "
            "Chang, Kai-Min and Malave, Vicente L. and Mason, Robert A. and Just, Marcel Adam",
            title="Predicting Human Brain Activity Associated with the Meanings of Nouns",
            journal="Science",
            volume="320",
            number="5880",
            pages="1191--1195",
            year="2008",
        ),
        "myburgh2021": _entry(
            "misc",
            author="Myburgh, Johannes C. and Mouton, Coenraad and Davel, Marelie H.",
            title="Tracking Translation Invariance in CNNs",
            eprint="2104.05997",
            archiveprefix="arXiv",
            year="2021",
        ),
        "quiroga2023": _entry(
            "article",
            author="Quiroga, Facundo Manuel and Torrents-Barrena, Jordina and Lanzarini, Laura "
            "Cristina and Puig-Valls, Domenec",
            title="Invariance Measures for Neural Networks",
            journal="Applied Soft Computing",
            volume="132",
            pages="109817",
            year="2023",
        ),
        "selvaraju2017": _entry(
            "inproceedings",
            author="Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and others",
            title="Grad-CAM: Visual Explanations from Deep Networks",
            booktitle="International Conference on Computer Vision",
            year="2017",
        ),
        "shrikumar2017": _entry(
            "inproceedings",
            author="Shrikumar, Avanti and Greenside, Peyton and Kundaje, Anshul",
            title="Learning Important Features Through Propagating Activation Differences",
            booktitle="International Conference on Machine Learning",
            year="2017",
        ),
        "simonyan2014": _entry(
            "inproceedings",
            author="Simonyan, Karen and Vedaldi, Andrea and Zisserman, Andrew",
            title="Deep Inside Convolutional Networks",
            booktitle="International Conference on Learning Representations, Workshop",
            year="2014",
        ),
        "song2012": _entry(
            "article",
            author="Song, Le and Smola, Alex and Gretton, Arthur and Bedo, Justin and Borgwardt, "
            "Karsten",
            title="Feature Selection via Dependence Maximization",
            journal="Journal of Machine Learning Research",
            volume="13",
            pages="1393--1434",
            year="2012",
        ),
        "springenberg2015": _entry(
            "inproceedings",
            author="Springenberg, Jost Tobias and Dosovitskiy, Alexey and others",
            title="Striving for Simplicity: The All Convolutional Net",
            booktitle="International Conference on Learning Representations, Workshop",
            year="2015",
        ),
        "sundararajan2017": _entry(
            "inproceedings",
            author="Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
            title="Axiomatic Attribution for Deep Networks",
            booktitle="International Conference on Machine Learning",
            year="2017",
        ),
        "yeh2019": _entry(
            "inproceedings",
            author="Yeh, Chih-Kuan and Hsieh, Cheng-Yu and Suggala, Arun Sai and others",
            title="On the (In)fidelity and Sensitivity of Explanations",
            booktitle="Advances in Neural Information Processing Systems",
            year="2019",
        ),
        "zeiler2014": _entry(
            "inproceedings",
            author="Zeiler, Matthew D. and Fergus, Rob",
            title="Visualizing and Understanding Convolutional Networks",
            booktitle="European Conference on Computer Vision",
            year="2014",
        ),
        "zhang2019": _entry(
            "inproceedings",
            author="Zhang, Richard",
            title="Making Convolutional Networks Shift-Invariant Again",
            booktitle="International Conference on Machine Learning",
            pages="7324--7334",
            year="2019",
        ),
    }
)


def to_bibtex(keys: Iterable[str], *, version: str = "") -> str:
    """Return entries of the bibliography as BibTeX, sorted, the software's own last.

    Parameters
    ----------
    keys
        Keys of :data:`BIBLIOGRAPHY`.
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
    entries = []
    for key in sorted(set(keys)):
        if key not in BIBLIOGRAPHY:
            raise UnknownNameError("reference", key, BIBLIOGRAPHY)
        entries.append((key, *BIBLIOGRAPHY[key]))
    if version:
        entries.append(
            (
                "elsewhere",
                "software",
                {
                    "author": "{The elsewhere developers}",
                    "title": "elsewhere: translation invariance of vision networks, layer by layer",
                    "version": version,
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
