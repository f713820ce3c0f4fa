"""What the training loop asks of a trainer."""

import abc


class Trainer(abc.ABC):
    """Trains a model's epochs step by step under a strategy, and predicts with it.

    `hccm_tf.training.loop.run_epochs` calls it. Subclasses set `steps`.

    Args:
        model: compiled `keras.Model`, made in the scope of `strategy`.
        strategy: of `hccm_tf.training.strategies.make_strategy`.
        batches: `hccm_tf.data.dataset.Batches`, of one replica or worker.

    Attributes:
        model: as given.
        strategy: as given.
        steps: number of steps of an epoch.
        losses: list of the losses of the epoch's steps so far, as far as the model's
            metrics do not hold them; a checkpoint keeps them.
    """

    def __init__(self, model, strategy, batches):
        self.model, self.strategy = model, strategy
        self.losses = []
        self._batches = batches

    @abc.abstractmethod
    def train_epoch(self, epoch, done=0, check=lambda: None):
        """Trains the steps of an epoch that are left.

        Args:
            epoch: int.
            done: number of steps that were done before.
            check: function that raises to end a long wait within a step, which will
                be done again.

        Returns:
            iterator over the logs of each step, a dict with `"loss"`, as Keras has it
            the mean of the epoch's steps so far; the step is done when its logs are
            taken.
        """

    @abc.abstractmethod
    def epoch_loss(self):
        """Mean loss of the epoch's steps so far, those before a checkpoint included."""

    @abc.abstractmethod
    def check_agreement(self, progress):
        """Raises unless all processes of the cluster begin alike.

        Args:
            progress: what else than the weights has to be equal, for `repr`.

        Raises:
            InputError: on all of them.
        """

    @abc.abstractmethod
    def predict(self, split, check=lambda: None):
        """Predicts a split.

        Args:
            split: its name.
            check: function that raises to end the prediction between its batches, or
                a long wait.

        Returns:
            data frame of `hccm_tf.training.evaluation.to_frame`.
        """
