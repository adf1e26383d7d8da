"""What recipes read beside the training documents, on its way to students."""

import copy
from dataclasses import replace

import pytest

from autocompress.compression.methods import draw
from autocompress.config import load_config
from autocompress.errors import UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.pipeline.candidates import Students, space_of
from autocompress.pipeline.lessons import Lessons
from autocompress.pipeline.teacher import load_teacher
from autocompress.plan import Chosen
from tests.pipeline.test_students import PARAMS


@pytest.mark.parametrize("recipe", ["distilbert", "tinybert", "ei_bert"])
def test_recipes_that_read_other_documents_train_students_of_fewer_tokens(world, recipe):
    given = ["model.finetune.epochs=1", f"search.space.recipe=[{recipe}]", "search.variants=2"]
    config = load_config(
        world.run_file, [*given, "search.space.vocabulary_keep=[0.8]", "search.space.vocabulary_coverage=0.5"]
    )
    teacher = load_teacher(config)
    told = []
    if recipe == "distilbert":
        with pytest.raises(UnsupportedError, match="no mask token"):
            Lessons(config, teacher, lambda *_: None)
    tokenizer = copy.deepcopy(teacher.task.tokenizer)
    tokenizer.mask_token = "[UNK]"
    teacher = replace(teacher, task=teacher.task.with_tokenizer(tokenizer))
    lessons = Lessons(config, teacher, lambda stage, *_: told.append(stage))
    maker = Students(teacher, batch_size=16, seed=0, coverage=0.5, lessons=lessons)
    drawn = draw(Chosen({**PARAMS, "vocabulary_keep": 0.8}), teacher.shape, space_of(config, teacher.shape))
    student = maker.make(drawn)
    assert adapter_of(student).shape(student).vocabulary < teacher.shape.vocabulary
    assert ("language head" in told) == (recipe == "distilbert")
    if recipe == "tinybert":
        places = [int(batch.indices.max()) for batch in lessons.varied(maker.task(drawn), None).batches(40, 0)]
        assert max(places) >= len(teacher.task.dataset.train)
