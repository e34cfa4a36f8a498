"""BibTeX entries of the papers behind the shipped studies."""

AKIYAMA_SUZUKI = """@misc{akiyama2022excess,
  title         = {Excess Risk of Two-Layer {ReLU} Neural Networks in Teacher-Student Settings and its Superiority to
                   Kernel Methods},
  author        = {Akiyama, Shunta and Suzuki, Taiji},
  year          = {2022},
  eprint        = {2205.14818},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""

KOU_CHEN_CHEN_GU = """@inproceedings{kou2023benign,
  title         = {Benign Overfitting in Two-layer {ReLU} Convolutional Neural Networks},
  author        = {Kou, Yiwen and Chen, Zixiang and Chen, Yuanzhou and Gu, Quanquan},
  booktitle     = {International Conference on Machine Learning},
  year          = {2023},
  eprint        = {2303.04145},
  archivePrefix = {arXiv}
}"""

SUH_CHENG = """@article{suh2025survey,
  title         = {A Survey on Statistical Theory of Deep Learning: Approximation, Training Dynamics, and Generative Models},
  author        = {Suh, Namjoon and Cheng, Guang},
  journal       = {Annual Review of Statistics and Its Application},
  volume        = {12},
  year          = {2025},
  eprint        = {2401.07187},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""

LEE_FINITE_INFINITE = """@inproceedings{lee2020finite,
  title         = {Finite Versus Infinite Neural Networks: an Empirical Study},
  author        = {Lee, Jaehoon and Schoenholz, Samuel S. and Pennington, Jeffrey and Adlam, Ben and Xiao, Lechao and
                   Novak, Roman and Sohl-Dickstein, Jascha},
  booktitle     = {Advances in Neural Information Processing Systems},
  volume        = {33},
  year          = {2020},
  eprint        = {2007.15801},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}"""

ALLEN_ZHU_LI = """@inproceedings{allenzhu2021feature,
  title         = {Feature Purification: How Adversarial Training Performs Robust Deep Learning},
  author        = {Allen-Zhu, Zeyuan and Li, Yuanzhi},
  booktitle     = {IEEE Symposium on Foundations of Computer Science},
  year          = {2021},
  eprint        = {2005.10190},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}"""

SHILTON_EXACT_REPRESENTORS = """@misc{shilton2024novel,
  title         = {Novel Kernel Models and Exact Representor Theory for Neural Networks Beyond the Over-Parameterized Regime},
  author        = {Shilton, Alistair and Gupta, Sunil and Rana, Santu and Venkatesh, Svetha},
  year          = {2024},
  eprint        = {2405.15254},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""

BEN_AROUS_ONLINE = """@article{benarous2021online,
  title         = {Online Stochastic Gradient Descent on Non-Convex Losses from High-Dimensional Inference},
  author        = {Ben Arous, Gerard and Gheissari, Reza and Jagannath, Aukosh},
  journal       = {Journal of Machine Learning Research},
  volume        = {22},
  year          = {2021},
  eprint        = {2003.10409},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""

XU_MULTI_GRADE = """@misc{xu2023multigrade,
  title         = {Multi-Grade Deep Learning},
  author        = {Xu, Yuesheng},
  year          = {2023},
  eprint        = {2302.00150},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}"""

MEI_MONTANARI = """@article{mei2022generalization,
  title         = {The Generalization Error of Random Features Regression: Precise Asymptotics and the Double Descent Curve},
  author        = {Mei, Song and Montanari, Andrea},
  journal       = {Communications on Pure and Applied Mathematics},
  volume        = {75},
  number        = {4},
  pages         = {667--766},
  year          = {2022},
  eprint        = {1908.05355},
  archivePrefix = {arXiv},
  primaryClass  = {math.ST}
}"""

FLEISSNER_ANIL_GHOSHDASTIDAR = """@misc{fleissner2024infinite,
  title         = {Infinite Width Limits of Self Supervised Neural Networks},
  author        = {Fleissner, Maximilian and Anil, Gautham Govind and Ghoshdastidar, Debarghya},
  year          = {2024},
  eprint        = {2411.11176},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}"""

CUI_CROSSOVER = """@inproceedings{cui2021generalization,
  title         = {Generalization Error Rates in Kernel Regression: The Crossover from the Noiseless to Noisy Regime},
  author        = {Cui, Hugo and Loureiro, Bruno and Krzakala, Florent and Zdeborov{\\'a}, Lenka},
  booktitle     = {Advances in Neural Information Processing Systems},
  volume        = {34},
  year          = {2021},
  eprint        = {2105.15004},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""

WORTSMAN_SUBSPACES = """@inproceedings{wortsman2021learning,
  title         = {Learning Neural Network Subspaces},
  author        = {Wortsman, Mitchell and Horton, Maxwell and Guestrin, Carlos and Farhadi, Ali and Rastegari, Mohammad},
  booktitle     = {International Conference on Machine Learning},
  year          = {2021},
  eprint        = {2102.10472},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}"""
