"""The hub: exports go there when asked to, and only here.

push_to_hub    an export -> a repository, and its address
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from innerloop.artifacts.export import MARKER
from innerloop.errors import Fault, UserError


def push_to_hub(
    repo_id: str, save: Callable[[Path], None], *, private: bool | None = None, token: str | None = None
) -> str:
    """Uploads what `save` writes to a folder, in one commit; the repository is made where there is none.

    private  of a repository that is made here; by default as the account or organization has it
    token    by default that of `hf auth login`, or HF_TOKEN
    Raises UserError, with the hub's own words, where it can't be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(Fault("not the name of a repository", "repo_id", repo_id, "you/name")) from error
    with TemporaryDirectory() as place:
        folder = Path(place) / "export"
        save(folder)
        hub = HfApi(token=token)
        try:
            made = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
            hub.upload_folder(
                repo_id=made, folder_path=folder, commit_message="Upload by innerloop", ignore_patterns=[MARKER]
            )
        except Exception as error:  # a network can make its client raise anything
            problem = f"not uploaded ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
            right = (
                f"a network that reaches {hub.endpoint}, and a token that may write there: `hf auth login` or token="
            )
            raise UserError(Fault(problem, "repo_id", repo_id, right)) from error
        return f"{hub.endpoint}/{made}"
