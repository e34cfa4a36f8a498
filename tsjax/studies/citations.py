"""The papers that shipped studies are about, as BibTeX entries."""

AKIYAMA_SUZUKI = """@misc{akiyama2022excess,
  title         = {Excess Risk of Two-Layer {ReLU} Neural Networks in Teacher-Student Settings and its Superiority to
                   Kernel Methods},
  author        = {Akiyama, Shunta and Suzuki, Taiji},
  year          = {2022},
  eprint        = {2205.14818},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""
