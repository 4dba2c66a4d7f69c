"""The studio: pages on which people teach, and the JSON API behind them. Stands on the store and the run folders alone.

    label     questions to people, one key an answer          runs       what training does, while it does it
    arena     which generation is better, and how surely      agreement  how far the answers can be trusted
    projects  what is asked, of whom, with which guideline    people     who may do what, and what they carry

Nothing here loads torch; what needs a model (chat with a policy) is a process of its own.
"""
