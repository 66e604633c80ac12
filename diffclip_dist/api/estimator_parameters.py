"""Parameters as scikit-learn's estimators have them, without scikit-learn, which the core does without."""

import inspect
from typing import Any, Self


class NotFittedError(ValueError, AttributeError):
    """An estimator was used before `fit`."""


class EstimatorParameters:
    """Reads and sets what ``__init__`` takes, so that ``sklearn.base.clone`` and searches over parameters work."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, as given.

        Args:
            deep: as scikit-learn's; no parameter is an estimator, so it changes nothing.
        """
        del deep
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Sets parameters by name.

        Raises:
            ValueError: there is no such parameter.
        """
        known = self._parameter_names()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__}: no parameter {name!r}; it has: {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The parameters that are not as by default."""
        defaults = {name: one.default for name, one in inspect.signature(type(self).__init__).parameters.items()}
        given = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
