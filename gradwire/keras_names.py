"""Names of Keras: written by tests/generate_keras_names.py, never by hand."""

from __future__ import annotations

KERAS_VERSION = "3.15.1"

CLASSES: dict[str, dict[str, str]] = {
    "model": {
        "keras": "Model Sequential",
        "keras.layers": (
            "Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
            "AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add "
            "AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D AveragePooling2D "
            "AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BatchNormalization Bidirectional CategoryEncoding "
            "CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D "
            "Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D "
            "Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose "
            "Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout "
            "ELU EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise "
            "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D "
            "GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D "
            "GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer "
            "IntegerLookup LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPool1D MaxPool2D "
            "MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention "
            "Multiply Normalization PReLU Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness "
            "RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing "
            "RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective "
            "RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation "
            "RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram "
            "SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D SimpleRNN SimpleRNNCell "
            "Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization "
            "StackedRNNCells StringLookup Subtract TextVectorization TimeDistributed UnitNormalization UpSampling1D "
            "UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D"
        ),
        "keras.models": "Model Sequential",
        "keras.random": "SeedGenerator",
        "keras.src.activations.activations": "Mish ReLU",
        "keras.src.applications.convnext": "LayerScale StochasticDepth",
        "keras.src.applications.inception_resnet_v2": "CustomScaleLayer",
        "keras.src.models.functional": "Functional",
        "keras.src.ops.core": (
            "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack"
        ),
        "keras.src.ops.einops": "Rearrange",
        "keras.src.ops.image": (
            "AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB MapCoordinates "
            "PadImages PerspectiveTransform RGBToGrayscale RGBToHSV Resize SSIM ScaleAndTranslate SobelEdges"
        ),
        "keras.src.ops.linalg": (
            "Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr SVD Solve SolveTriangular"
        ),
        "keras.src.ops.math": (
            "CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp RFFT Rsqrt "
            "STFT SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum TopK ViewAsComplex ViewAsReal"
        ),
        "keras.src.ops.nn": (
            "AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CTCDecode CTCLoss "
            "CategoricalCrossentropy Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention Elu Fold "
            "Gelu Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool "
            "Moments MultiHot Normalize OneHot PSNR Polar RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu "
            "SoftShrink Softmax Softplus Softsign SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid "
            "Sparsemax Squareplus TanhShrink Threshold Unfold"
        ),
        "keras.src.ops.numpy": (
            "Abs Absolute Add All AllClose Amax Amin Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan "
            "Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit Average Bincount BitwiseAnd "
            "BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil "
            "Clip Concatenate Conj Conjugate Copy Corrcoef Correlate Cos Cosh CountNonzero Cross Cumprod Cumsum "
            "Deg2rad Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan Dot Dsplit Dstack Einsum EmptyLike Equal "
            "Exp Exp2 ExpandDims Expm1 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Full FullLike Gcd "
            "Geomspace GetItem Greater GreaterEqual Heaviside Histogram Hsplit Hstack Hypot I0 Imag Inner IsIn "
            "Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less LessEqual Linspace "
            "Log Log10 Log1p Log2 Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Matmul Max "
            "Maximum Mean Median Meshgrid Min Minimum Mod Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod "
            "Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim "
            "Negative Nextafter Nonzero NotEqual OnesLike Outer Pad Percentile Power Prod Ptp Quantile Rad2deg Ravel "
            "Real Reciprocal Repeat Reshape RightShift Roll Rot90 Round SearchSorted Select Sign Signbit Sin Sinc "
            "Sinh Size Slogdet Sort Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan "
            "Tanh Tensordot Tile Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unique UnravelIndex Vander Var "
            "Vdot View Vsplit Vstack Where ZerosLike"
        ),
    },
    "part": {
        "keras": "DTypePolicy FloatDTypePolicy",
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm max_norm min_max_norm non_neg unit_norm",
        "keras.dtype_policies": "DTypePolicy DTypePolicyMap FloatDTypePolicy",
        "keras.initializers": (
            "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal "
            "LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer "
            "TruncatedNormal VarianceScaling Zeros constant glorot_normal glorot_uniform he_normal he_uniform "
            "identity lecun_normal lecun_uniform ones orthogonal random_normal random_uniform stft truncated_normal "
            "variance_scaling zeros"
        ),
        "keras.mixed_precision": "DTypePolicy Policy",
        "keras.random": "SeedGenerator",
        "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer l1 l1_l2 l2 orthogonal_regularizer",
    },
    "loss": {
        "keras.losses": (
            "BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy CategoricalFocalCrossentropy "
            "CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber "
            "KLDivergence LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError "
            "MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge Tversky"
        ),
    },
    "metric": {
        "keras.metrics": (
            "AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy CategoricalCrossentropy "
            "CategoricalHinge ConcordanceCorrelation CosineSimilarity F1Score FBetaScore FalseNegatives "
            "FalsePositives Hinge IoU KLDivergence LogCoshError Mean MeanAbsoluteError MeanAbsolutePercentageError "
            "MeanIoU MeanSquaredError MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson "
            "Precision PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError "
            "SensitivityAtSpecificity SparseCategoricalAccuracy SparseCategoricalCrossentropy "
            "SparseTopKCategoricalAccuracy SpecificityAtSensitivity SquaredHinge Sum TopKCategoricalAccuracy "
            "TrueNegatives TruePositives"
        ),
    },
    "optimizer": {
        "keras.optimizers": (
            "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion Muon Nadam RMSprop SGD ScheduleFreeAdamW"
        ),
    },
    "schedule": {
        "keras.optimizers.schedules": (
            "CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay PolynomialDecay"
        ),
    },
}
"""Kind to module to the names of classes that a config of that kind may hold, parted by spaces."""

BARE = (
    "Constant DTypePolicy DTypePolicyMap FloatDTypePolicy GlorotNormal GlorotUniform HeNormal HeUniform Identity "
    "IdentityInitializer L1 L1L2 L2 LecunNormal LecunUniform MaxNorm MinMaxNorm NonNeg Ones Orthogonal "
    "OrthogonalInitializer OrthogonalRegularizer RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal "
    "UnitNorm VarianceScaling Zeros constant glorot_normal glorot_uniform he_normal he_uniform identity l1 l1l2 l2 "
    "lecun_normal lecun_uniform max_norm min_max_norm non_neg normal one ones orthogonal orthogonal_regularizer "
    "random_normal random_uniform stft truncated_normal uniform unit_norm variance_scaling zero zeros"
)
"""Initialisers, regularisers, constraints and dtype policies that Keras finds without a module."""

FUNCTIONS: dict[str, str] = {
    "keras.activations": (
        "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid "
        "log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus "
        "sparse_sigmoid sparsemax squareplus tanh tanh_shrink threshold"
    ),
    "keras.losses": ("categorical_generalized_cross_entropy circle cosine_similarity ctc dice huber log_cosh tversky"),
    "keras.metrics": (
        "binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy categorical_crossentropy "
        "categorical_focal_crossentropy categorical_hinge concordance_correlation hinge kl_divergence "
        "mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error "
        "pearson_correlation poisson sparse_categorical_accuracy sparse_categorical_crossentropy "
        "sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy"
    ),
    "keras.ops": (
        "abs absolute all amax amin angle any arccos arccosh arcsin arcsinh arctan arctanh argmax argmin argsort "
        "array average bartlett bincount bitwise_invert bitwise_not blackman cbrt ceil celu cholesky cholesky_inverse "
        "conj conjugate copy corrcoef cos cosh count_nonzero cumprod cumsum deg2rad det diag diagflat diagonal dtype "
        "eig eigh elu empty_like erf erfc erfinv exp exp2 expm1 fabs fft fft2 flip fliplr flipud floor gelu glu "
        "hamming hanning hard_shrink hard_sigmoid hard_silu hard_tanh histogram i0 ifft2 imag inv irfft isfinite "
        "isinf isnan isneginf isposinf isreal leaky_relu log log10 log1p log2 log_sigmoid log_softmax logdet "
        "logical_not logsumexp lu_factor matrix_rank max mean median meshgrid min nan_to_num nanargmax nanargmin "
        "nancumprod nancumsum nanmax nanmean nanmedian nanmin nanprod nanstd nansum nanvar ndim negative nonzero norm "
        "normalize ones_like pinv prod ptp qr rad2deg ravel real reciprocal relu relu6 rfft rms_normalization round "
        "rsqrt selu shape sigmoid sign signbit silu sin sinc sinh size slogdet soft_shrink softmax softplus softsign "
        "sort sparse_plus sparse_sigmoid sparsemax sqrt square squareplus squeeze stack std sum svd tan tanh "
        "tanh_shrink trace transpose tril triu trunc unique unstack vander var view view_as_complex view_as_real "
        "zeros_like"
    ),
}
"""Module to the names of functions of tensors."""

PARAMETERS: dict[str, dict[str, str]] = {
    "loss": {
        "BinaryCrossentropy": "axis dtype from_logits label_smoothing name reduction",
        "BinaryFocalCrossentropy": (
            "alpha apply_class_balancing axis dtype from_logits gamma label_smoothing name reduction"
        ),
        "CTC": "dtype name reduction",
        "CategoricalCrossentropy": "axis dtype from_logits label_smoothing name reduction",
        "CategoricalFocalCrossentropy": "alpha axis dtype from_logits gamma label_smoothing name reduction",
        "CategoricalGeneralizedCrossEntropy": "dtype name q reduction",
        "CategoricalHinge": "dtype name reduction",
        "Circle": "dtype gamma margin name reduction remove_diagonal",
        "CosineSimilarity": "axis dtype name reduction",
        "Dice": "axis dtype name reduction",
        "Hinge": "dtype name reduction",
        "Huber": "delta dtype name reduction",
        "KLDivergence": "dtype name reduction",
        "LogCosh": "dtype name reduction",
        "MeanAbsoluteError": "dtype name reduction",
        "MeanAbsolutePercentageError": "dtype name reduction",
        "MeanSquaredError": "dtype name reduction",
        "MeanSquaredLogarithmicError": "dtype name reduction",
        "Poisson": "dtype name reduction",
        "SparseCategoricalCrossentropy": "axis dtype from_logits ignore_class name reduction",
        "SquaredHinge": "dtype name reduction",
        "Tversky": "alpha axis beta dtype name reduction",
        "binary_crossentropy": "axis dtype from_logits label_smoothing name reduction",
        "binary_focal_crossentropy": (
            "alpha apply_class_balancing axis dtype from_logits gamma label_smoothing name reduction"
        ),
        "categorical_crossentropy": "axis dtype from_logits label_smoothing name reduction",
        "categorical_focal_crossentropy": "alpha axis dtype from_logits gamma label_smoothing name reduction",
        "categorical_hinge": "dtype name reduction",
        "circle": "dtype gamma margin name reduction ref_embeddings ref_labels remove_diagonal",
        "cosine_similarity": "axis dtype name reduction",
        "ctc": "dtype name reduction",
        "dice": "axis dtype name reduction",
        "hinge": "dtype name reduction",
        "huber": "delta dtype name reduction",
        "kl_divergence": "dtype name reduction",
        "log_cosh": "dtype name reduction",
        "mean_absolute_error": "dtype name reduction",
        "mean_absolute_percentage_error": "dtype name reduction",
        "mean_squared_error": "dtype name reduction",
        "mean_squared_logarithmic_error": "dtype name reduction",
        "poisson": "dtype name reduction",
        "sparse_categorical_crossentropy": "axis dtype from_logits ignore_class name reduction",
        "squared_hinge": "dtype name reduction",
        "tversky": "alpha axis beta dtype name reduction",
    },
    "metric": {
        "AUC": (
            "curve dtype from_logits label_weights multi_label name num_labels num_thresholds summation_method "
            "thresholds"
        ),
        "Accuracy": "dtype name",
        "BinaryAccuracy": "dtype name threshold",
        "BinaryCrossentropy": "dtype from_logits label_smoothing name",
        "BinaryIoU": "dtype name target_class_ids threshold",
        "CategoricalAccuracy": "dtype name",
        "CategoricalCrossentropy": "axis dtype from_logits label_smoothing name",
        "CategoricalHinge": "dtype name",
        "ConcordanceCorrelation": "axis dtype name",
        "CosineSimilarity": "axis dtype name",
        "F1Score": "average dtype name threshold",
        "FBetaScore": "average beta dtype name threshold",
        "FalseNegatives": "dtype name thresholds",
        "FalsePositives": "dtype name thresholds",
        "Hinge": "dtype name",
        "IoU": ("axis dtype ignore_class name num_classes sparse_y_pred sparse_y_true target_class_ids"),
        "KLDivergence": "dtype name",
        "LogCoshError": "dtype name",
        "Mean": "dtype name",
        "MeanAbsoluteError": "dtype name",
        "MeanAbsolutePercentageError": "dtype name",
        "MeanIoU": "axis dtype ignore_class name num_classes sparse_y_pred sparse_y_true",
        "MeanSquaredError": "dtype name",
        "MeanSquaredLogarithmicError": "dtype name",
        "OneHotIoU": "axis dtype ignore_class name num_classes sparse_y_pred target_class_ids",
        "OneHotMeanIoU": "axis dtype ignore_class name num_classes sparse_y_pred",
        "PearsonCorrelation": "axis dtype name",
        "Poisson": "dtype name",
        "Precision": "class_id dtype name thresholds top_k",
        "PrecisionAtRecall": "class_id dtype name num_thresholds recall",
        "R2Score": "class_aggregation dtype name num_regressors",
        "Recall": "class_id dtype name thresholds top_k",
        "RecallAtPrecision": "class_id dtype name num_thresholds precision",
        "RootMeanSquaredError": "dtype name",
        "SensitivityAtSpecificity": "class_id dtype name num_thresholds specificity",
        "SparseCategoricalAccuracy": "dtype name",
        "SparseCategoricalCrossentropy": "axis dtype from_logits ignore_class name",
        "SparseTopKCategoricalAccuracy": "dtype from_sorted_ids k name",
        "SpecificityAtSensitivity": "class_id dtype name num_thresholds sensitivity",
        "SquaredHinge": "dtype name",
        "Sum": "dtype name",
        "TopKCategoricalAccuracy": "dtype k name",
        "TrueNegatives": "dtype name thresholds",
        "TruePositives": "dtype name thresholds",
    },
    "optimizer": {
        "Adadelta": (
            "clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name rho use_ema weight_decay"
        ),
        "Adafactor": (
            "beta_2_decay clip_threshold clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon_1 epsilon_2 "
            "global_clipnorm gradient_accumulation_steps learning_rate loss_scale_factor name relative_step use_ema "
            "weight_decay"
        ),
        "Adagrad": (
            "clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps initial_accumulator_value learning_rate loss_scale_factor name use_ema "
            "weight_decay"
        ),
        "Adam": (
            "amsgrad beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema weight_decay"
        ),
        "AdamW": (
            "amsgrad beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema weight_decay"
        ),
        "Adamax": (
            "beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema weight_decay"
        ),
        "Ftrl": (
            "beta clipnorm clipvalue ema_momentum ema_overwrite_frequency global_clipnorm gradient_accumulation_steps "
            "initial_accumulator_value l1_regularization_strength l2_regularization_strength "
            "l2_shrinkage_regularization_strength learning_rate learning_rate_power loss_scale_factor name use_ema "
            "weight_decay"
        ),
        "Lamb": (
            "beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema weight_decay"
        ),
        "Lion": (
            "beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema weight_decay"
        ),
        "Muon": (
            "adam_beta_1 adam_beta_2 adam_lr_ratio adam_weight_decay clipnorm clipvalue ema_momentum "
            "ema_overwrite_frequency epsilon exclude_embeddings exclude_layers global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor momentum muon_a muon_b muon_c name nesterov "
            "ns_steps rms_rate use_ema weight_decay"
        ),
        "Nadam": (
            "beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema weight_decay"
        ),
        "RMSprop": (
            "centered clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor momentum name rho use_ema weight_decay"
        ),
        "SGD": (
            "clipnorm clipvalue ema_momentum ema_overwrite_frequency global_clipnorm gradient_accumulation_steps "
            "learning_rate loss_scale_factor momentum name nesterov use_ema weight_decay"
        ),
        "ScheduleFreeAdamW": (
            "beta_1 beta_2 clipnorm clipvalue ema_momentum ema_overwrite_frequency epsilon global_clipnorm "
            "gradient_accumulation_steps learning_rate loss_scale_factor name use_ema warmup_steps weight_decay"
        ),
    },
    "schedule": {
        "CosineDecay": "alpha decay_steps initial_learning_rate name warmup_steps warmup_target",
        "CosineDecayRestarts": "alpha first_decay_steps initial_learning_rate m_mul name t_mul",
        "ExponentialDecay": "decay_rate decay_steps initial_learning_rate name staircase",
        "InverseTimeDecay": "decay_rate decay_steps initial_learning_rate name staircase",
        "PiecewiseConstantDecay": "boundaries name values",
        "PolynomialDecay": "cycle decay_steps end_learning_rate initial_learning_rate name power",
    },
}
"""Kind to the name of a loss, metric, optimiser or schedule to the names of its parameters."""

ALIASES: dict[str, str] = {
    "loss": (
        "BCE=binary_crossentropy KLD=kl_divergence MAE=mean_absolute_error MAPE=mean_absolute_percentage_error "
        "MSE=mean_squared_error MSLE=mean_squared_logarithmic_error bce=binary_crossentropy kld=kl_divergence "
        "mae=mean_absolute_error mape=mean_absolute_percentage_error mse=mean_squared_error "
        "msle=mean_squared_logarithmic_error"
    ),
    "metric": (
        "BCE=BinaryCrossentropy MAE=MeanAbsoluteError MAPE=MeanAbsolutePercentageError MSE=MeanSquaredError "
        "MSLE=MeanSquaredLogarithmicError accuracy=Accuracy auc=AUC bce=BinaryCrossentropy "
        "binary_accuracy=BinaryAccuracy binary_crossentropy=BinaryCrossentropy binary_io_u=BinaryIoU "
        "categorical_accuracy=CategoricalAccuracy categorical_crossentropy=CategoricalCrossentropy "
        "categorical_hinge=CategoricalHinge concordance_correlation=ConcordanceCorrelation "
        "cosine_similarity=CosineSimilarity f1_score=F1Score f_beta_score=FBetaScore false_negatives=FalseNegatives "
        "false_positives=FalsePositives hinge=Hinge io_u=IoU kl_divergence=KLDivergence log_cosh_error=LogCoshError "
        "mae=MeanAbsoluteError mape=MeanAbsolutePercentageError mean=Mean mean_absolute_error=MeanAbsoluteError "
        "mean_absolute_percentage_error=MeanAbsolutePercentageError mean_io_u=MeanIoU "
        "mean_squared_error=MeanSquaredError mean_squared_logarithmic_error=MeanSquaredLogarithmicError "
        "mse=MeanSquaredError msle=MeanSquaredLogarithmicError one_hot_io_u=OneHotIoU one_hot_mean_io_u=OneHotMeanIoU "
        "pearson_correlation=PearsonCorrelation poisson=Poisson precision=Precision "
        "precision_at_recall=PrecisionAtRecall r2_score=R2Score recall=Recall recall_at_precision=RecallAtPrecision "
        "root_mean_squared_error=RootMeanSquaredError sensitivity_at_specificity=SensitivityAtSpecificity "
        "sparse_categorical_accuracy=SparseCategoricalAccuracy "
        "sparse_categorical_crossentropy=SparseCategoricalCrossentropy "
        "sparse_top_k_categorical_accuracy=SparseTopKCategoricalAccuracy "
        "specificity_at_sensitivity=SpecificityAtSensitivity squared_hinge=SquaredHinge sum=Sum "
        "top_k_categorical_accuracy=TopKCategoricalAccuracy true_negatives=TrueNegatives true_positives=TruePositives"
    ),
    "optimizer": (
        "adadelta=Adadelta adafactor=Adafactor adagrad=Adagrad adam=Adam adamax=Adamax adamw=AdamW ftrl=Ftrl "
        "lamb=Lamb lion=Lion muon=Muon nadam=Nadam rmsprop=RMSprop schedulefreeadamw=ScheduleFreeAdamW sgd=SGD"
    ),
    "schedule": "",
}
"""Kind to other names of what PARAMETERS has, as alias=name."""
