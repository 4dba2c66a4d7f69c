"""The equations of backflip as pure functions: tensors in, tensors out.

Nothing here knows a model, a setting or a file. Each function carries its equation, its paper and its shapes, so
that it can be read beside the paper and checked against any other library.

    tensors        masks, averages, whitening, log-probabilities of tokens
    kl             estimators of the distance to a reference policy, and the controller of its coefficient
    returns        rewards → returns and GAE advantages
    advantages     scores of a group of samples → advantages without a critic
    policy_losses  advantages → the losses of PPO, REINFORCE, CISPO, GSPO, SAPO, and of the critic
    preference     comparisons → the losses of reward models, DPO and IPO
    choices        ties, rankings and ratings → the losses of reward models
    calibration    predicted and stated preferences → how far predictions can be believed
    ratings        match results → ratings with intervals
    overoptimisation  best of n under a noisy proxy by enumeration; the forms of Gao et al.
    agreement      answers of several people → how far they agree beyond chance, with intervals
    crowds         answers of several people → what is so, and whom to believe
    shares         counts → shares with intervals, and whether a coin is fair
"""
