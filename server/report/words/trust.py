"""Texts on whom the promise counts, and on everything that left the sites."""

WORDS = {
    "trust": (
        "4. Trust model, and what left each site",
        "4. Vertrauensmodell, und was jeden Standort verlassen hat",
    ),
    "trust.model": ("trust model", "Vertrauensmodell"),
    "trust.federated": (
        "federated: each site keeps its own records and adds noise before anything leaves it",
        "föderiert: Jeder Standort behält seine Datensätze und fügt Rauschen hinzu, bevor ihn etwas "
        "verlässt",
    ),
    "trust.against": ("adversaries", "Angreifer, mit denen gerechnet wird"),
    "trust.all": (
        "the coordinator, all other sites and whoever has the model may work together against a "
        "record; &epsilon; holds against them",
        "Koordinationsstelle, alle anderen Standorte und alle, die das Modell haben, dürfen gegen "
        "einen Datensatz zusammenwirken; &epsilon; gilt ihnen gegenüber",
    ),
    "trust.few": (
        "the coordinator, whoever has the model, and at most {n} of the other sites may work together "
        "against a record; the sites share the noise, so that &epsilon; holds against no more of them",
        "Koordinationsstelle, alle, die das Modell haben, und höchstens {n} der anderen Standorte "
        "dürfen gegen einen Datensatz zusammenwirken; die Standorte teilen sich das Rauschen, sodass "
        "&epsilon; gegenüber mehr von ihnen nicht gilt",
    ),
    "trust.honest": ("who must be honest", "wer sich redlich verhalten muss"),
    "trust.own": (
        "at each site its staff, its machine, and the guard, the only program that reads records. "
        "Nobody else",
        "am Standort selbst: das Personal, der Rechner und der Guard, das einzige Programm, das "
        "Datensätze liest. Sonst niemand",
    ),
    "trust.others": (
        "at each site its staff, its machine, and the guard, the only program that reads records. Of "
        "the other sites all but {n}",
        "am Standort selbst: das Personal, der Rechner und der Guard, das einzige Programm, das "
        "Datensätze liest. Von den anderen Standorten alle bis auf {n}",
    ),
    "trust.queries": ("queries", "Abfragen"),
    "trust.queries.text": (
        "none by other people: the schedule was fixed before the run",
        "keine durch Dritte: Der Ablaufplan stand vor dem Lauf fest",
    ),
    "left": (
        "What left each site, and what is not covered",
        "Was jeden Standort verlassen hat, und was nicht gedeckt ist",
    ),
    "left.concepts": (
        "<b>The shared model can answer a question.</b> {kinds}. Sites of such a kind train the layer "
        "that answers their question together (concepts): coordinator and members can answer it with "
        "the shared model, without any site's own heads, which never leave. About a record they learn "
        "nothing beyond &epsilon;. A site whose policy.yaml says <code>concepts: own-heads</code> "
        "sent no part of that layer.",
        "<b>Das gemeinsame Modell kann eine Frage beantworten.</b> {kinds}. Standorte einer solchen "
        "Art trainieren die Schicht, die ihre Frage beantwortet, gemeinsam (Konzepte): "
        "Koordinationsstelle und Mitglieder können sie mit dem gemeinsamen Modell beantworten, ohne "
        "die eigenen Antwortschichten eines Standorts, die ihn nie verlassen. Über einen Datensatz "
        "erfahren sie nicht mehr, als &epsilon; zulässt. Ein Standort, dessen policy.yaml "
        "<code>concepts: own-heads</code> enthält, hat keinen Teil dieser Schicht gesendet.",
    ),
    "left.kind.one": ("{sites} has images of the kind {kind}", "{sites} hat Bilder der Art {kind}"),
    "left.kind.many": (
        "{sites} have images of the kind {kind}",
        "{sites} haben Bilder der Art {kind}",
    ),
    "left.no-concepts": (
        "No layer that answers a site's question left it. The shared model alone answers nothing; who "
        "has it and labelled images can fit heads of their own.",
        "Keine Schicht, die die Frage eines Standorts beantwortet, hat ihn verlassen. Das gemeinsame "
        "Modell allein beantwortet nichts; wer es und befundete Bilder hat, kann eigene "
        "Antwortschichten anpassen.",
    ),
    "left.item": ("item", "Gegenstand"),
    "left.mechanism": ("mechanism", "Mechanismus"),
    "left.covered": (
        "covered by the ledger, or public",
        "durch das Budgetbuch gedeckt oder öffentlich",
    ),
    "left.yes": ("yes", "ja"),
    "left.no": ("not covered", "nicht gedeckt"),
    "left.undeclared": (
        "The site did not declare what may leave it.",
        "Der Standort hat nicht angegeben, was ihn verlassen darf.",
    ),
    "left.gaps": (
        "Not covered by any guarantee in this report:",
        "Durch keine Garantie in diesem Bericht gedeckt:",
    ),
    "left.no-gaps": (
        "The site did not declare what is not covered.",
        "Der Standort hat nicht angegeben, was nicht gedeckt ist.",
    ),
}
